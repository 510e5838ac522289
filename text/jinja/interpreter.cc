#include "text/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "text/jinja/convert.h"
#include "text/jinja/filters.h"
#include "text/jinja/functions.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"

namespace palimpsest::jinja {
namespace {

// Keeps the native stack bounded: statements, expressions and macro calls all nest through here.
class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }
  absl::Status status() const {
    if (*depth_ <= kRenderDepthMax) return absl::OkStatus();
    return InvalidArgument("macros and expressions nest deeper than {} while rendering", kRenderDepthMax);
  }

 private:
  int* depth_;
};

}  // namespace

Interpreter::Interpreter(std::chrono::system_clock::time_point now) : now_(now) {
  SetVariable("range", Value(Builtin::kRange));
  SetVariable("namespace", Value(Builtin::kNamespace));
  SetVariable("dict", Value(Builtin::kDict));
  SetVariable("raise_exception", Value(Builtin::kRaiseException));
  SetVariable("strftime_now", Value(Builtin::kStrftimeNow));
}

void Interpreter::SetVariable(std::string_view name, Value value) {
  root_.variables[name] = std::move(value);
}

absl::StatusOr<std::string> Interpreter::Render(const Body& body) {
  std::string out;
  out_ = &out;
  PALIMPSEST_RETURN_IF_ERROR(ExecuteBody(body, &root_));
  return out;
}

absl::Status Interpreter::Locate(absl::Status status, int line) {
  if (status.ok() || std::exchange(located_, true)) return status;
  return InvalidArgument("chat template line {}: {}", line, Message(status));
}

absl::Status Interpreter::Output(std::string_view text) {
  const auto added = static_cast<int64_t>(text.size());
  if (static_cast<int64_t>(out_->size()) + added > kTextBytesMax) {
    return InvalidArgument("the rendered text is longer than {} bytes; shorten the messages", kTextBytesMax);
  }
  PALIMPSEST_RETURN_IF_ERROR(budget_.Write(0, added));
  out_->append(text);
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::Capture(const Body& body, Frame* frame) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  Frame scope{frame, {}};
  const absl::Status status = ExecuteBody(body, &scope);
  out_ = outer;
  PALIMPSEST_RETURN_IF_ERROR(status);
  return Value(std::move(text));
}

// --- statements ---

absl::Status Interpreter::ExecuteBody(const Body& body, Frame* frame) {
  for (const Statement& statement : body) {
    PALIMPSEST_RETURN_IF_ERROR(Locate(Execute(statement, frame), statement.line));
    if (flow_ != Flow::kNormal) break;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Execute(const Statement& statement, Frame* frame) {
  DepthGuard guard(&depth_);
  PALIMPSEST_RETURN_IF_ERROR(guard.status());
  PALIMPSEST_RETURN_IF_ERROR(budget_.Steps(1));
  switch (statement.kind) {
    case Statement::Kind::kText:
      return Output(statement.text);
    case Statement::Kind::kPrint: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression, *frame));
      if (value.IsText()) return Output(value.text());
      PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(value, &budget_));
      return Output(text);
    }
    case Statement::Kind::kIf:
      return ExecuteIf(statement, frame);
    case Statement::Kind::kFor:
      return ExecuteFor(statement, frame);
    case Statement::Kind::kSet: {
      PALIMPSEST_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression, *frame));
      return Assign(statement.target, std::move(value), frame);
    }
    case Statement::Kind::kSetBlock:
    case Statement::Kind::kFilter: {
      PALIMPSEST_ASSIGN_OR_RETURN(Value value, Capture(statement.body, frame));
      if (statement.filter != nullptr) {
        PALIMPSEST_ASSIGN_OR_RETURN(value, EvaluateFilter(*statement.filter, *frame, &value));
      }
      if (statement.kind == Statement::Kind::kSetBlock)
        return Assign(statement.target, std::move(value), frame);
      PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(value, &budget_));
      return Output(text);
    }
    case Statement::Kind::kMacro:
      frame->variables[statement.text] = Value(&statement);
      return absl::OkStatus();
    case Statement::Kind::kWith:
    case Statement::Kind::kScope: {
      Frame scope{frame, {}};
      for (const auto& [target, expression] : statement.assignments) {
        PALIMPSEST_ASSIGN_OR_RETURN(Value value, Evaluate(*expression, *frame));  // sees what is outside
        PALIMPSEST_RETURN_IF_ERROR(Assign(target, std::move(value), &scope));
      }
      return ExecuteBody(statement.body, &scope);
    }
    case Statement::Kind::kBreak:
      flow_ = Flow::kBreak;
      return absl::OkStatus();
    case Statement::Kind::kContinue:
      flow_ = Flow::kContinue;
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteIf(const Statement& statement, Frame* frame) {
  for (const Branch& branch : statement.branches) {
    bool taken = true;
    if (branch.condition != nullptr) {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition, *frame));
      taken = IsTrue(condition);
    }
    if (taken) return ExecuteBody(branch.body, frame);
  }
  return absl::OkStatus();
}

// What the loop iterates over: all elements, or those that meet the loop's condition.
absl::StatusOr<SequencePtr> Interpreter::LoopItems(const Statement& statement, Frame* frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value source, Evaluate(*statement.expression, *frame));
  PALIMPSEST_ASSIGN_OR_RETURN(SequencePtr items, Elements(source, &budget_));
  if (statement.condition == nullptr) return items;
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    Frame scope{frame, {}};
    PALIMPSEST_RETURN_IF_ERROR(Assign(statement.target, item, &scope));
    PALIMPSEST_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition, scope));
    if (IsTrue(condition)) kept.push_back(item);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const Value list,
                              MakeSequence(Sequence::Kind::kList, std::move(kept), &budget_));
  return list.As<SequencePtr>();
}

absl::Status Interpreter::ExecuteFor(const Statement& statement, Frame* frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr items, LoopItems(statement, frame));
  if (items->items.empty()) {
    Frame scope{frame, {}};
    return ExecuteBody(statement.else_body, &scope);
  }
  if (items->depth >= kNestingMax) return InvalidArgument("lists nest deeper than {}", kNestingMax);
  auto loop = std::make_shared<Loop>();
  loop->items = items;
  for (const Value& item : items->items) {
    PALIMPSEST_RETURN_IF_ERROR(budget_.Steps(1));
    Frame scope{frame, {}};
    PALIMPSEST_RETURN_IF_ERROR(Assign(statement.target, item, &scope));
    scope.variables["loop"] = Value(loop);
    PALIMPSEST_RETURN_IF_ERROR(ExecuteBody(statement.body, &scope));
    if (std::exchange(flow_, Flow::kNormal) == Flow::kBreak) break;
    ++loop->index;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Assign(const Target& target, Value value, Frame* frame) {
  if (!target.attribute.empty()) {
    const Value* holder = nullptr;
    for (const Frame* f = frame; f != nullptr && holder == nullptr; f = f->parent) {
      const auto found = f->variables.find(target.names[0]);
      if (found != f->variables.end()) holder = &found->second;
    }
    if (holder == nullptr || !holder->Is<Namespace*>()) {
      return InvalidArgument("'{}' is no namespace, so its attribute '{}' cannot be set", target.names[0],
                             target.attribute);
    }
    holder->As<Namespace*>()->attributes[target.attribute] = std::move(value);
    return absl::OkStatus();
  }
  if (!target.unpacks) {
    frame->variables[target.names[0]] = std::move(value);
    return absl::OkStatus();
  }
  if (value.IsUndefined()) return UndefinedError(value);
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr items, Elements(value, &budget_));
  if (items->items.size() != target.names.size()) {
    return InvalidArgument("{} values cannot be unpacked into {} names", items->items.size(),
                           target.names.size());
  }
  for (size_t i = 0; i < target.names.size(); ++i) frame->variables[target.names[i]] = items->items[i];
  return absl::OkStatus();
}

// --- expressions ---

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression, const Frame& frame) {
  DepthGuard guard(&depth_);
  absl::Status limits = guard.status();
  if (limits.ok()) limits = budget_.Steps(1);
  if (!limits.ok()) return Locate(std::move(limits), expression.line);
  absl::StatusOr<Value> value = Dispatch(expression, frame);
  if (!value.ok()) return Locate(std::move(value).status(), expression.line);
  return value;
}

absl::StatusOr<Value> Interpreter::Dispatch(const Expression& expression, const Frame& frame) {
  using Kind = Expression::Kind;
  const std::vector<ExpressionPtr>& args = expression.args;
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.value;
    case Kind::kName:
      for (const Frame* f = &frame; f != nullptr; f = f->parent) {
        const auto found = f->variables.find(expression.name);
        if (found != f->variables.end()) return found->second;
      }
      return Value(Undefined{expression.name});
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return EvaluateItems(expression, frame);
    case Kind::kNegate: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*args[0], frame));
      return Negate(value);
    }
    case Kind::kPlus: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*args[0], frame));
      return Arithmetic(Value(int64_t{0}), "+", value, &budget_);
    }
    case Kind::kNot: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*args[0], frame));
      return Value(!IsTrue(value));
    }
    case Kind::kAnd:
    case Kind::kOr: {
      Value value;
      for (const ExpressionPtr& arg : args) {  // the first operand that decides, or the last
        PALIMPSEST_ASSIGN_OR_RETURN(value, Evaluate(*arg, frame));
        if (IsTrue(value) == (expression.kind == Kind::kOr)) break;
      }
      return value;
    }
    case Kind::kIf: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value condition, Evaluate(*args[1], frame));
      if (IsTrue(condition)) return Evaluate(*args[0], frame);
      if (args[2] == nullptr) return Value(Undefined{"the value of an if without else"});
      return Evaluate(*args[2], frame);
    }
    case Kind::kArithmetic:
      return EvaluateChain(expression, frame);
    case Kind::kConcat:
      return EvaluateConcat(expression, frame);
    case Kind::kCompare:
      return EvaluateCompare(expression, frame);
    case Kind::kAttribute: {
      PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*args[0], frame));
      return GetAttribute(value, expression.name, &budget_);
    }
    case Kind::kItem:
      return EvaluateItem(expression, frame);
    case Kind::kSlice:
      return EvaluateSlice(expression, frame);
    case Kind::kCall:
      return EvaluateCall(expression, frame);
    case Kind::kFilter:
      return EvaluateFilter(expression, frame, nullptr);
    case Kind::kTest:
      return EvaluateTest(expression, frame);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateItems(const Expression& expression, const Frame& frame) {
  std::vector<Value> items;
  for (const ExpressionPtr& arg : expression.args) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value item, Evaluate(*arg, frame));
    items.push_back(std::move(item));
  }
  if (expression.kind == Expression::Kind::kList)
    return MakeSequence(Sequence::Kind::kList, std::move(items), &budget_);
  if (expression.kind == Expression::Kind::kTuple) {
    return MakeSequence(Sequence::Kind::kTuple, std::move(items), &budget_);
  }
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    PALIMPSEST_RETURN_IF_ERROR(SetEntry(dict.get(), std::move(items[i]), std::move(items[i + 1]), &budget_));
  }
  return Value(std::move(dict));
}

absl::StatusOr<Value> Interpreter::EvaluateChain(const Expression& expression, const Frame& frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.args[0], frame));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.args[i + 1], frame));
    PALIMPSEST_ASSIGN_OR_RETURN(value,
                                Arithmetic(std::move(value), expression.operators[i], right, &budget_));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expression& expression, const Frame& frame) {
  Value joined{std::string()};
  for (const ExpressionPtr& arg : expression.args) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Value part, Evaluate(*arg, frame));
    if (part.Is<Markup>()) return InvalidArgument("joining {} by ~ is not supported", TypeName(part));
    if (part.IsText()) {
      PALIMPSEST_ASSIGN_OR_RETURN(joined, AppendText(std::move(joined), part.text(), &budget_));
      continue;
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(part, &budget_));
    PALIMPSEST_ASSIGN_OR_RETURN(joined, AppendText(std::move(joined), text, &budget_));
  }
  return joined;
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression, const Frame& frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.args[0], frame));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.args[i + 1], frame));
    PALIMPSEST_ASSIGN_OR_RETURN(const bool holds,
                                CompareWith(left, expression.operators[i], right, &budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::EvaluateItem(const Expression& expression, const Frame& frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.args[0], frame));
  PALIMPSEST_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.args[1], frame));
  const Value& constant = expression.args[1]->value;
  return GetItem(value, key, constant.IsText() ? std::string_view(constant.text()) : "this item", &budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression, const Frame& frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.args[0], frame));
  Value bounds[3];
  const Value* given[3] = {nullptr, nullptr, nullptr};
  for (int i = 0; i < 3; ++i) {
    if (expression.args[i + 1] == nullptr) continue;
    PALIMPSEST_ASSIGN_OR_RETURN(bounds[i], Evaluate(*expression.args[i + 1], frame));
    given[i] = &bounds[i];
  }
  return GetSlice(value, given[0], given[1], given[2], &budget_);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expression& expression, const Frame& frame) {
  Arguments arguments;
  for (size_t i = 1; i < expression.args.size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.args[i], frame));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, arg] : expression.named) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value value, Evaluate(*arg, frame));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expression& expression, const Frame& frame,
                                                  const Value* input) {
  Value operand;
  if (expression.args[0] == nullptr) {
    operand = *input;
  } else if (input != nullptr) {  // a further filter of a block
    PALIMPSEST_ASSIGN_OR_RETURN(operand, EvaluateFilter(*expression.args[0], frame, input));
  } else {
    PALIMPSEST_ASSIGN_OR_RETURN(operand, Evaluate(*expression.args[0], frame));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, frame));
  return ApplyFilter(expression.name, operand, arguments, &budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression, const Frame& frame) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.args[0], frame));
  PALIMPSEST_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, frame));
  PALIMPSEST_ASSIGN_OR_RETURN(const bool holds,
                              ApplyTest(expression.name, value, arguments.positional, &budget_));
  return Value(holds);
}

}  // namespace palimpsest::jinja
