// Renders a parsed template: walks its statements, with Jinja's scopes.
//
// A for loop (each iteration anew), a macro call and the other blocks open a scope; "if" does not. What is
// set in a scope ends with it; only namespaces carry values out.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/arguments.h"
#include "text/jinja/ast.h"
#include "text/jinja/budget.h"

namespace palimpsest::jinja {

class Interpreter {
 public:
  // `now` is what strftime_now tells, in UTC.
  explicit Interpreter(std::chrono::system_clock::time_point now);
  Budget* budget() { return &budget_; }
  void SetVariable(std::string_view name, Value value);  // `name` outlives the interpreter

  // Once per interpreter. InvalidArgument "chat template line N: ...".
  absl::StatusOr<std::string> Render(const Body& body);

 private:
  struct Frame {
    const Frame* parent = nullptr;
    std::map<std::string_view, Value> variables;
  };
  enum class Flow { kNormal, kBreak, kContinue };

  absl::Status ExecuteBody(const Body& body, Frame* frame);
  absl::Status Execute(const Statement& statement, Frame* frame);
  absl::Status ExecuteIf(const Statement& statement, Frame* frame);
  absl::Status ExecuteFor(const Statement& statement, Frame* frame);
  absl::StatusOr<SequencePtr> LoopItems(const Statement& statement, Frame* frame);
  absl::Status Assign(const Target& target, Value value, Frame* frame);
  absl::Status Output(std::string_view text);
  // The text that `body` puts out in a scope of its own.
  absl::StatusOr<Value> Capture(const Body& body, Frame* frame);

  // Evaluate adds the line to errors; the others need not.
  absl::StatusOr<Value> Evaluate(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> Dispatch(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateItems(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateChain(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateConcat(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateItem(const Expression& expression, const Frame& frame);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression, const Frame& frame);
  // `input` replaces the missing operand of a block's innermost filter.
  absl::StatusOr<Value> EvaluateFilter(const Expression& expression, const Frame& frame, const Value* input);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression, const Frame& frame);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& expression, const Frame& frame);

  absl::StatusOr<Value> CallMacro(const Statement& macro, const Arguments& arguments);
  absl::StatusOr<Value> CallBuiltin(Builtin builtin, const Arguments& arguments);
  absl::StatusOr<Value> MakeDict(const Arguments& arguments);
  absl::StatusOr<Value> MakeNamespace(const Arguments& arguments);

  absl::Status Locate(absl::Status status, int line);

  const std::chrono::system_clock::time_point now_;
  Budget budget_;
  Frame root_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;  // live until the render ends
  std::string* out_ = nullptr;
  Flow flow_ = Flow::kNormal;
  int depth_ = 0;
  bool located_ = false;  // the error on its way up has its line
};

}  // namespace palimpsest::jinja
