#include "text/jinja/expression_parser.h"

#include <algorithm>

namespace palimpsest::jinja {
namespace {

class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }

 private:
  int* depth_;
};

}  // namespace

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
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (current().IsName("if")) {
    const int line = current().line;
    Advance();
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      PALIMPSEST_ASSIGN_OR_RETURN(otherwise, Parse());
    }
    PALIMPSEST_ASSIGN_OR_RETURN(
        value, Make(Kind::kIf, line, List(std::move(value), std::move(condition), std::move(otherwise))));
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr item, conditional ? Parse() : ParseWithoutCondition());
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
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr first, ParseAnd());
  if (!current().IsName("or")) return first;
  Args args = List(std::move(first));
  while (SkipName("or")) {
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr next, ParseAnd());
    args.push_back(std::move(next));
  }
  return Make(Kind::kOr, line, std::move(args));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  const int line = current().line;
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr first, ParseNot());
  if (!current().IsName("and")) return first;
  Args args = List(std::move(first));
  while (SkipName("and")) {
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr next, ParseNot());
    args.push_back(std::move(next));
  }
  return Make(Kind::kAnd, line, std::move(args));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  const int line = current().line;
  if (!SkipName("not")) return ParseCompare();
  DepthGuard guard(&depth_);
  if (depth_ > kNestingMax) return ErrorHere("expressions nest deeper than {}", kNestingMax);
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  return Make(Kind::kNot, line, List(std::move(operand)));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  Expression node{Kind::kCompare, current().line};
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    node.args.push_back(std::move(operand));
  }
  if (node.operators.empty()) return std::move(node.args[0]);
  return Make(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseChain(
    Kind kind, std::initializer_list<std::string_view> operators,
    absl::StatusOr<ExpressionPtr> (ExpressionParser::*operand)()) {
  Expression node{kind, current().line};
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr first, (this->*operand)());
  node.args.push_back(std::move(first));
  auto is_operator = [&](std::string_view op) { return current().Is(op); };
  while (std::any_of(operators.begin(), operators.end(), is_operator)) {
    node.operators.push_back(current().text);
    Advance();
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr next_operand, (this->*operand)());
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
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
  if (!current().Is("**")) return left;
  Expression node{Kind::kArithmetic, current().line};
  node.args.push_back(std::move(left));
  while (Skip("**")) {
    node.operators.push_back("**");
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    PALIMPSEST_ASSIGN_OR_RETURN(node, Make(kind, line, List(std::move(operand))));
  } else {
    PALIMPSEST_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  PALIMPSEST_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filters) return node;
  return ParseFiltersAndTests(std::move(node));
}

}  // namespace palimpsest::jinja
