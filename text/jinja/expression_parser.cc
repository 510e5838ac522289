#include "text/jinja/expression_parser.h"

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/tests.h"

namespace palimpsest::jinja {
namespace {

class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }

 private:
  int* depth_;
};

template <typename... T>
std::vector<ExpressionPtr> List(T... items) {
  std::vector<ExpressionPtr> list;
  (list.push_back(std::move(items)), ...);
  return list;
}

}  // namespace

#define PARSE(left, expression) PALIMPSEST_ASSIGN_OR_RETURN(left, expression)

bool ExpressionParser::Skip(std::string_view op) {
  if (!current().Is(op)) return false;
  Advance();
  return true;
}

bool ExpressionParser::SkipName(std::string_view name) {
  if (!current().IsName(name)) return false;
  Advance();
  return true;
}

absl::Status ExpressionParser::Expect(std::string_view op) {
  if (Skip(op)) return absl::OkStatus();
  return ErrorHere("expected '{}', found {}", op, Describe());
}

absl::StatusOr<std::string> ExpressionParser::ExpectName(std::string_view what) {
  if (current().kind != Token::Kind::kName) return ErrorHere("expected {}, found {}", what, Describe());
  std::string name = current().text;
  Advance();
  return name;
}

std::string ExpressionParser::Describe() const {
  switch (current().kind) {
    case Token::Kind::kText:
      return "text";
    case Token::Kind::kPrint:
      return "{{";
    case Token::Kind::kPrintEnd:
      return "}}";
    case Token::Kind::kBlock:
      return "{%";
    case Token::Kind::kBlockEnd:
      return "%}";
    case Token::Kind::kString:
      return "a string";
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return "a number";
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kName:
    case Token::Kind::kOperator:
      break;
  }
  return fmt::format("'{}'", current().text.substr(0, 64));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Make(Expression node) const {
  auto include = [&node](const ExpressionPtr& child) {
    if (child != nullptr) node.depth = std::max(node.depth, child->depth + 1);
  };
  for (const ExpressionPtr& child : node.args) include(child);
  for (const auto& [name, child] : node.named) include(child);
  if (node.depth > kNestingMax) return ErrorHere("expressions nest deeper than {}", kNestingMax);
  return std::make_unique<const Expression>(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Make(Kind kind, int line, Args args) const {
  Expression node{kind, line};
  node.args = std::move(args);
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Parse() {
  DepthGuard guard(&depth_);
  if (depth_ > kNestingMax) return ErrorHere("expressions nest deeper than {}", kNestingMax);
  PARSE(ExpressionPtr value, ParseOr());
  while (current().IsName("if")) {
    const int line = current().line;
    Advance();
    PARSE(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      PARSE(otherwise, Parse());
    }
    PARSE(value, Make(Kind::kIf, line, List(std::move(value), std::move(condition), std::move(otherwise))));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseWithoutCondition() { return ParseOr(); }

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool conditional) {
  const int line = current().line;
  auto at_end = [this] {
    const Token& token = current();
    return token.kind == Token::Kind::kPrintEnd || token.kind == Token::Kind::kBlockEnd || token.Is(")") ||
           token.IsName("recursive");
  };
  Args items;
  bool tuple = false;
  while (!at_end()) {
    PARSE(ExpressionPtr item, conditional ? Parse() : ParseWithoutCondition());
    items.push_back(std::move(item));
    if (!Skip(",")) break;
    tuple = true;
  }
  if (tuple) return Make(Kind::kTuple, line, std::move(items));
  if (items.empty()) return ErrorHere("expected an expression, found {}", Describe());
  return std::move(items[0]);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  const int line = current().line;
  PARSE(ExpressionPtr first, ParseAnd());
  if (!current().IsName("or")) return first;
  Args args = List(std::move(first));
  while (SkipName("or")) {
    PARSE(ExpressionPtr next, ParseAnd());
    args.push_back(std::move(next));
  }
  return Make(Kind::kOr, line, std::move(args));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  const int line = current().line;
  PARSE(ExpressionPtr first, ParseNot());
  if (!current().IsName("and")) return first;
  Args args = List(std::move(first));
  while (SkipName("and")) {
    PARSE(ExpressionPtr next, ParseNot());
    args.push_back(std::move(next));
  }
  return Make(Kind::kAnd, line, std::move(args));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  const int line = current().line;
  if (!SkipName("not")) return ParseCompare();
  DepthGuard guard(&depth_);
  if (depth_ > kNestingMax) return ErrorHere("expressions nest deeper than {}", kNestingMax);
  PARSE(ExpressionPtr operand, ParseNot());
  return Make(Kind::kNot, line, List(std::move(operand)));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  Expression node{Kind::kCompare, current().line};
  PARSE(ExpressionPtr first, ParseSum());
  node.args.push_back(std::move(first));
  while (true) {
    const Token& token = current();
    if (token.IsName("not") && next().IsName("in")) {
      Advance();
      node.operators.push_back("not in");
    } else if (token.IsName("in") || token.Is("==") || token.Is("!=") || token.Is("<") || token.Is("<=") ||
               token.Is(">") || token.Is(">=")) {
      node.operators.push_back(token.text);
    } else {
      break;
    }
    Advance();
    PARSE(ExpressionPtr operand, ParseSum());
    node.args.push_back(std::move(operand));
  }
  if (node.operators.empty()) return std::move(node.args[0]);
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseChain(
    Kind kind, std::initializer_list<std::string_view> operators,
    absl::StatusOr<ExpressionPtr> (ExpressionParser::*operand)()) {
  Expression node{kind, current().line};
  PARSE(ExpressionPtr first, (this->*operand)());
  node.args.push_back(std::move(first));
  auto is_operator = [&](std::string_view op) { return current().Is(op); };
  while (std::any_of(operators.begin(), operators.end(), is_operator)) {
    node.operators.push_back(current().text);
    Advance();
    PARSE(ExpressionPtr next_operand, (this->*operand)());
    node.args.push_back(std::move(next_operand));
  }
  if (node.operators.empty()) return std::move(node.args[0]);
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  return ParseChain(Kind::kArithmetic, {"+", "-"}, &ExpressionParser::ParseConcat);
}
absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcat() {
  return ParseChain(Kind::kConcat, {"~"}, &ExpressionParser::ParseProduct);
}
absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  return ParseChain(Kind::kArithmetic, {"*", "/", "//", "%"}, &ExpressionParser::ParsePower);
}
absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  PARSE(ExpressionPtr left, ParseUnary(true));
  if (!current().Is("**")) return left;
  Expression node{Kind::kArithmetic, current().line};
  node.args.push_back(std::move(left));
  while (Skip("**")) {
    node.operators.push_back("**");
    PARSE(ExpressionPtr right, ParseUnary(true));
    node.args.push_back(std::move(right));
  }
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  DepthGuard guard(&depth_);
  if (depth_ > kNestingMax) return ErrorHere("expressions nest deeper than {}", kNestingMax);
  const int line = current().line;
  ExpressionPtr node;
  if (current().Is("-") || current().Is("+")) {
    const Kind kind = current().Is("-") ? Kind::kNegate : Kind::kPlus;
    Advance();
    PARSE(ExpressionPtr operand, ParseUnary(false));
    PARSE(node, Make(kind, line, List(std::move(operand))));
  } else {
    PARSE(node, ParsePrimary());
  }
  PARSE(node, ParsePostfix(std::move(node)));
  if (!with_filters) return node;
  return ParseFiltersAndTests(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token token = current();
  Expression node{Kind::kConstant, token.line};
  if (token.Is("[")) return ParseBrackets();
  if (token.Is("{")) return ParseBraces();
  if (token.Is("(")) {
    Advance();
    if (Skip(")")) return Make(Kind::kTuple, token.line, {});
    PARSE(ExpressionPtr inner, ParseTuple(true));
    PALIMPSEST_RETURN_IF_ERROR(Expect(")"));
    return inner;
  }
  if (token.kind == Token::Kind::kString) {
    std::string text;
    for (; current().kind == Token::Kind::kString; Advance()) text += current().text;
    node.value = Value(std::move(text));
    return Make(std::move(node));
  }
  if (token.kind == Token::Kind::kInteger) {
    node.value = Value(token.integer);
  } else if (token.kind == Token::Kind::kFloat) {
    node.value = Value(token.real);
  } else if (token.IsName("true") || token.IsName("True")) {
    node.value = Value(true);
  } else if (token.IsName("false") || token.IsName("False")) {
    node.value = Value(false);
  } else if (token.IsName("none") || token.IsName("None")) {
    node.value = Value(None{});
  } else if (token.kind == Token::Kind::kName) {
    if (token.text == "caller" || token.text == "varargs" || token.text == "kwargs" || token.text == "self" ||
        token.text == "super") {
      return ErrorHere("the special name '{}' is not supported", token.text);
    }
    node.kind = Kind::kName;
    node.name = token.text;
  } else {
    return ErrorHere("expected an expression, found {}", Describe());
  }
  Advance();
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBrackets() {
  const int line = current().line;
  Advance();
  Args items;
  while (!current().Is("]")) {
    PARSE(ExpressionPtr item, Parse());
    items.push_back(std::move(item));
    if (!Skip(",")) break;
  }
  PALIMPSEST_RETURN_IF_ERROR(Expect("]"));
  return Make(Kind::kList, line, std::move(items));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBraces() {
  const int line = current().line;
  Advance();
  Args items;
  while (!current().Is("}")) {
    PARSE(ExpressionPtr key, Parse());
    PALIMPSEST_RETURN_IF_ERROR(Expect(":"));
    PARSE(ExpressionPtr value, Parse());
    items.push_back(std::move(key));
    items.push_back(std::move(value));
    if (!Skip(",")) break;
  }
  PALIMPSEST_RETURN_IF_ERROR(Expect("}"));
  return Make(Kind::kDict, line, std::move(items));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (true) {
    if (current().Is(".") || current().Is("[")) {
      PARSE(node, ParseSubscript(std::move(node)));
    } else if (current().Is("(")) {
      PARSE(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr operand) {
  const int line = current().line;
  if (Skip(".")) {
    if (current().kind == Token::Kind::kInteger) {  // a.0 is a[0]
      Expression index{Kind::kConstant, line};
      index.value = Value(current().integer);
      Advance();
      PARSE(ExpressionPtr constant, Make(std::move(index)));
      return Make(Kind::kItem, line, List(std::move(operand), std::move(constant)));
    }
    Expression node{Kind::kAttribute, line};
    PARSE(node.name, ExpectName("the name of an attribute"));
    node.args.push_back(std::move(operand));
    return Make(std::move(node));
  }
  Advance();  // [
  Args bounds = List(std::move(operand));
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    ExpressionPtr bound;
    if (!current().Is(":") && !current().Is("]")) {
      PARSE(bound, Parse());
    }
    bounds.push_back(std::move(bound));
    if (!Skip(":")) break;
    slice = true;
  }
  if (current().Is(",")) return ErrorHere("several subscripts in one [] are not supported");
  PALIMPSEST_RETURN_IF_ERROR(Expect("]"));
  if (!slice && bounds[1] == nullptr) return ErrorHere("an empty [] is not supported");
  if (slice) bounds.resize(4);
  return Make(slice ? Kind::kSlice : Kind::kItem, line, std::move(bounds));
}

absl::Status ExpressionParser::ParseArguments(Args* args, Named* named) {
  PALIMPSEST_RETURN_IF_ERROR(Expect("("));
  while (!current().Is(")")) {
    if (current().Is("*") || current().Is("**")) return ErrorHere("arguments by * and ** are not supported");
    if (current().kind == Token::Kind::kName && next().Is("=")) {
      std::string name = current().text;
      Advance(), Advance();
      for (const auto& [other, unused] : *named) {
        if (other == name) return ErrorHere("the argument '{}' is given twice", name);
      }
      PARSE(ExpressionPtr value, Parse());
      named->emplace_back(std::move(name), std::move(value));
    } else {
      if (!named->empty()) return ErrorHere("an argument without a name follows one with a name");
      PARSE(ExpressionPtr value, Parse());
      args->push_back(std::move(value));
    }
    // Also bounds the recursion of map('map', 'map', ...).
    if (args->size() + named->size() > kNestingMax)
      return ErrorHere("a call has more than {} arguments", kNestingMax);
    if (!Skip(",")) break;
  }
  return Expect(")");
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCall(ExpressionPtr callee) {
  Expression node{Kind::kCall, current().line};
  node.args.push_back(std::move(callee));
  PALIMPSEST_RETURN_IF_ERROR(ParseArguments(&node.args, &node.named));
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFiltersAndTests(ExpressionPtr node) {
  while (true) {
    if (current().Is("|")) {
      PARSE(node, ParseFilter(std::move(node)));
    } else if (current().IsName("is")) {
      PARSE(node, ParseTest(std::move(node)));
    } else if (current().Is("(")) {
      PARSE(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr operand) {
  Skip("|");  // absent only in front of the first name of a filter block
  Expression node{Kind::kFilter, current().line};
  PARSE(node.name, ExpectName("the name of a filter"));
  if (!FilterExists(node.name)) return ErrorHere("the filter '{}' is not supported", node.name);
  node.args.push_back(std::move(operand));
  if (current().Is("(")) {
    PALIMPSEST_RETURN_IF_ERROR(ParseArguments(&node.args, &node.named));
  }
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBlockFilters() {
  ExpressionPtr node;
  do {
    PARSE(node, ParseFilter(std::move(node)));
  } while (current().Is("|"));
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr operand) {
  Advance();  // is
  Expression node{Kind::kTest, current().line};
  const bool negated = SkipName("not");
  PARSE(node.name, ExpectName("the name of a test"));
  if (!TestExists(node.name)) return ErrorHere("the test '{}' is not supported", node.name);
  node.args.push_back(std::move(operand));
  const Token& token = current();
  const bool literal = token.kind == Token::Kind::kName || token.kind == Token::Kind::kString ||
                       token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat ||
                       token.Is("[") || token.Is("{");
  if (token.Is("(")) {
    PALIMPSEST_RETURN_IF_ERROR(ParseArguments(&node.args, &node.named));
    if (!node.named.empty()) return ErrorHere("arguments with names are not supported for tests");
  } else if (token.IsName("is")) {
    return ErrorHere("tests cannot be chained with 'is'");
  } else if (literal && !token.IsName("else") && !token.IsName("or") && !token.IsName("and")) {
    PARSE(ExpressionPtr arg, ParsePrimary());
    PARSE(arg, ParsePostfix(std::move(arg)));
    node.args.push_back(std::move(arg));
  }
  if (node.args.size() - 1 != TestArgumentCount(node.name)) {
    return ErrorHere("the test '{}' takes {} arguments, not {}", node.name, TestArgumentCount(node.name),
                     node.args.size() - 1);
  }
  const int line = node.line;
  PARSE(ExpressionPtr test, Make(std::move(node)));
  if (!negated) return test;
  return Make(Kind::kNot, line, List(std::move(test)));
}

}  // namespace palimpsest::jinja
