// A parsed template. Immutable after parsing; trees are at most kNestingMax deep, so recursion over them is
// bounded.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace palimpsest::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    kConstant,    // value
    kName,        // name
    kList,        // args
    kTuple,       // args
    kDict,        // args: key, value, key, value, ...
    kNegate,      // -args[0]
    kPlus,        // +args[0]
    kNot,         // not args[0]
    kArithmetic,  // args[0] operators[0] args[1] operators[1] ..., from the left
    kConcat,      // args[0] ~ args[1] ~ ...
    kCompare,     // as kArithmetic, with the meaning of Python's chains: a < b < c
    kAnd,         // all args
    kOr,          // all args
    kIf,          // args[0] if args[1] else args[2] (null: undefined)
    kAttribute,   // args[0].name
    kItem,        // args[0][args[1]]
    kSlice,       // args[0][args[1]:args[2]:args[3]], null where left out
    kCall,        // args[0](args[1..], named)
    kFilter,      // args[0] | name(args[1..], named); args[0] null: the text of the block
    kTest,        // args[0] is name(args[1..], named)
  };
  Expression(Kind k, int at_line) : kind(k), line(at_line) {}

  Kind kind;
  int line;
  int depth = 1;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> args;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

// What `set`, `for`, `with` assign to.
struct Target {
  std::vector<std::string> names;  // more than one: the value is unpacked
  bool unpacks = false;            // also with one name, as in "for a, in b"
  std::string attribute;           // set names[0].attribute = ...
};

using Body = std::vector<Statement>;

struct Branch {
  ExpressionPtr condition;  // null: else
  Body body;
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: undefined when left out
};

struct Statement {
  enum class Kind {
    kText,      // text
    kPrint,     // expression
    kIf,        // branches
    kFor,       // for target in expression if condition: body; else_body when nothing was iterated
    kSet,       // target = expression
    kSetBlock,  // target = body, through filter if there is one
    kMacro,     // text is its name; parameters, body
    kFilter,    // body through filter
    kWith,      // assignments, then body in a scope of its own
    kScope,     // body in a scope of its own ("generation")
    kBreak,
    kContinue,
  };
  Statement(Kind k, int at_line) : kind(k), line(at_line) {}

  Kind kind;
  int line;
  std::string text;
  ExpressionPtr expression;
  ExpressionPtr condition;
  ExpressionPtr filter;
  Target target;
  Body body;
  Body else_body;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
};

}  // namespace palimpsest::jinja
