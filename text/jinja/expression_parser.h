// The expressions of templates, with the precedence of Jinja 3 (filters and tests bind tightest, then **,
// unary, ...).
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/status.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace palimpsest::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<ExpressionPtr> Parse();                       // with "a if b else c"
  absl::StatusOr<ExpressionPtr> ParseWithoutCondition();       // without
  absl::StatusOr<ExpressionPtr> ParseTuple(bool conditional);  // an expression, or several between commas
  // "| name(...)", one or more; the first bar may be absent. What is filtered is the text of a block: args[0]
  // is null.
  absl::StatusOr<ExpressionPtr> ParseBlockFilters();

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void Advance() { position_ = std::min(position_ + 1, tokens_.size() - 1); }
  bool Skip(std::string_view op);
  bool SkipName(std::string_view name);
  absl::Status Expect(std::string_view op);
  absl::StatusOr<std::string> ExpectName(std::string_view what);

  template <typename... Args>
  absl::Status ErrorHere(fmt::format_string<Args...> format, Args&&... args) const {
    return InvalidArgument("chat template line {}: {}", current().line,
                           fmt::format(format, std::forward<Args>(args)...));
  }
  std::string Describe() const;  // the current token, for messages

 private:
  using Kind = Expression::Kind;
  using Args = std::vector<ExpressionPtr>;
  using Named = std::vector<std::pair<std::string, ExpressionPtr>>;

  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseFiltersAndTests(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseCall(ExpressionPtr callee);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseBrackets();
  absl::StatusOr<ExpressionPtr> ParseBraces();
  absl::Status ParseArguments(Args* args, Named* named);
  absl::StatusOr<ExpressionPtr> ParseChain(Kind kind, std::initializer_list<std::string_view> operators,
                                           absl::StatusOr<ExpressionPtr> (ExpressionParser::*operand)());

  template <typename... T>
  static Args List(T... items) {
    Args list;
    (list.push_back(std::move(items)), ...);
    return list;
  }
  // Checks the depth of the new node.
  absl::StatusOr<ExpressionPtr> Make(Expression node) const;
  absl::StatusOr<ExpressionPtr> Make(Kind kind, int line, Args args) const;

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;  // of the parser's own recursion
};

}  // namespace palimpsest::jinja
