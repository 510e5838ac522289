// What the operators stand between: literals, names, subscripts, calls, filters and tests.
#include "text/jinja/expression_parser.h"
#include "text/jinja/filters.h"
#include "text/jinja/tests.h"

namespace palimpsest::jinja {

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token token = current();
  Expression node{Kind::kConstant, token.line};
  if (token.Is("[")) return ParseBrackets();
  if (token.Is("{")) return ParseBraces();
  if (token.Is("(")) {
    Advance();
    if (Skip(")")) return Make(Kind::kTuple, token.line, {});
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(true));
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr item, Parse());
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    PALIMPSEST_RETURN_IF_ERROR(Expect(":"));
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
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
      PALIMPSEST_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (current().Is("(")) {
      PALIMPSEST_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
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
      PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr constant, Make(std::move(index)));
      return Make(Kind::kItem, line, List(std::move(operand), std::move(constant)));
    }
    Expression node{Kind::kAttribute, line};
    PALIMPSEST_ASSIGN_OR_RETURN(node.name, ExpectName("the name of an attribute"));
    node.args.push_back(std::move(operand));
    return Make(std::move(node));
  }
  Advance();  // [
  Args bounds = List(std::move(operand));
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    ExpressionPtr bound;
    if (!current().Is(":") && !current().Is("]")) {
      PALIMPSEST_ASSIGN_OR_RETURN(bound, Parse());
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
      PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      named->emplace_back(std::move(name), std::move(value));
    } else {
      if (!named->empty()) return ErrorHere("an argument without a name follows one with a name");
      PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
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
      PALIMPSEST_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (current().IsName("is")) {
      PALIMPSEST_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (current().Is("(")) {
      PALIMPSEST_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr operand) {
  Skip("|");  // absent only in front of the first name of a filter block
  Expression node{Kind::kFilter, current().line};
  PALIMPSEST_ASSIGN_OR_RETURN(node.name, ExpectName("the name of a filter"));
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
    PALIMPSEST_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
  } while (current().Is("|"));
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr operand) {
  Advance();  // is
  Expression node{Kind::kTest, current().line};
  const bool negated = SkipName("not");
  PALIMPSEST_ASSIGN_OR_RETURN(node.name, ExpectName("the name of a test"));
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
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr arg, ParsePrimary());
    PALIMPSEST_ASSIGN_OR_RETURN(arg, ParsePostfix(std::move(arg)));
    node.args.push_back(std::move(arg));
  }
  if (node.args.size() - 1 != TestArgumentCount(node.name)) {
    return ErrorHere("the test '{}' takes {} arguments, not {}", node.name, TestArgumentCount(node.name),
                     node.args.size() - 1);
  }
  const int line = node.line;
  PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr test, Make(std::move(node)));
  if (!negated) return test;
  return Make(Kind::kNot, line, List(std::move(test)));
}

}  // namespace palimpsest::jinja
