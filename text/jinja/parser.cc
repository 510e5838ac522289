#include "text/jinja/parser.h"

#include <algorithm>
#include <utility>

#include "text/jinja/expression_parser.h"
#include "text/jinja/lexer.h"

namespace palimpsest::jinja {
namespace {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : in_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() {
    Body body;
    PALIMPSEST_RETURN_IF_ERROR(ParseBody({}, &body));
    return body;
  }

 private:
  using Kind = Statement::Kind;
  using Ends = std::initializer_list<std::string_view>;

  // What the statements being parsed stand in, which decides what is allowed.
  struct Place {
    bool in_loop = false;   // break and continue mean something
    bool top_level = true;  // only "if" around: macros may be defined
  };

  // Statements up to a tag named in `ends`, whose name is consumed and returned through *end; to the
  // template's end if `ends` is empty.
  absl::Status ParseBody(Ends ends, Body* body, std::string* end = nullptr);
  absl::Status ParseInner(Place place, Ends ends, Body* body, std::string* end = nullptr);
  absl::StatusOr<Statement> ParseTag(const std::string& name, int line);

  absl::Status ParseIf(Statement* statement);
  absl::Status ParseFor(Statement* statement);
  absl::Status ParseSet(Statement* statement);
  absl::Status ParseMacro(Statement* statement);
  absl::Status ParseFilterBlock(Statement* statement);
  absl::Status ParseWith(Statement* statement);
  absl::StatusOr<Target> ParseTarget(bool with_attribute);
  absl::Status TagEnd();

  ExpressionParser in_;
  Place place_;
  int depth_ = 0;
};

absl::Status Parser::ParseBody(Ends ends, Body* body, std::string* end) {
  if (++depth_ > kNestingMax) return in_.ErrorHere("statements nest deeper than {}", kNestingMax);
  while (true) {
    const Token token = in_.current();
    if (token.kind == Token::Kind::kEnd) {
      if (ends.size() == 0) break;
      return in_.ErrorHere("the template ends where '{}' is expected", *(ends.end() - 1));
    }
    in_.Advance();
    if (token.kind == Token::Kind::kText) {
      body->emplace_back(Kind::kText, token.line).text = token.text;
    } else if (token.kind == Token::Kind::kPrint) {
      Statement& print = body->emplace_back(Kind::kPrint, token.line);
      PALIMPSEST_ASSIGN_OR_RETURN(print.expression, in_.ParseTuple(true));
      if (in_.current().kind != Token::Kind::kPrintEnd) {
        return in_.ErrorHere("expected '}}}}', found {}", in_.Describe());
      }
      in_.Advance();
    } else {  // kBlock: nothing else begins outside tags
      PALIMPSEST_ASSIGN_OR_RETURN(const std::string name, in_.ExpectName("the name of a tag"));
      if (std::find(ends.begin(), ends.end(), name) != ends.end()) {
        if (end != nullptr) *end = name;
        break;
      }
      PALIMPSEST_ASSIGN_OR_RETURN(Statement statement, ParseTag(name, token.line));
      body->push_back(std::move(statement));
    }
  }
  --depth_;
  return absl::OkStatus();
}

absl::Status Parser::ParseInner(Place place, Ends ends, Body* body, std::string* end) {
  const Place outer = std::exchange(place_, place);
  PALIMPSEST_RETURN_IF_ERROR(ParseBody(ends, body, end));
  place_ = outer;
  return absl::OkStatus();
}

absl::Status Parser::TagEnd() {
  if (in_.current().kind != Token::Kind::kBlockEnd) {
    return in_.ErrorHere("expected '%}}', found {}", in_.Describe());
  }
  in_.Advance();
  return absl::OkStatus();
}

absl::StatusOr<Statement> Parser::ParseTag(const std::string& name, int line) {
  Statement statement(Kind::kScope, line);
  if (name == "if") {
    PALIMPSEST_RETURN_IF_ERROR(ParseIf(&statement));
  } else if (name == "for") {
    PALIMPSEST_RETURN_IF_ERROR(ParseFor(&statement));
  } else if (name == "set") {
    PALIMPSEST_RETURN_IF_ERROR(ParseSet(&statement));
  } else if (name == "macro") {
    PALIMPSEST_RETURN_IF_ERROR(ParseMacro(&statement));
  } else if (name == "filter") {
    PALIMPSEST_RETURN_IF_ERROR(ParseFilterBlock(&statement));
  } else if (name == "with") {
    PALIMPSEST_RETURN_IF_ERROR(ParseWith(&statement));
  } else if (name ==
             "generation") {  // marks the assistant's text for training; its body is rendered as it is
    PALIMPSEST_RETURN_IF_ERROR(TagEnd());
    PALIMPSEST_RETURN_IF_ERROR(ParseInner({false, false}, {"endgeneration"}, &statement.body));
  } else if (name == "break" || name == "continue") {
    if (!place_.in_loop) {
      return InvalidArgument("chat template line {}: '{}' stands in no for loop, or in a block inside one",
                             line, name);
    }
    statement.kind = name == "break" ? Kind::kBreak : Kind::kContinue;
  } else {
    return InvalidArgument("chat template line {}: the tag '{}' is not supported here", line,
                           name.substr(0, 64));
  }
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return statement;
}

absl::Status Parser::ParseIf(Statement* statement) {
  statement->kind = Kind::kIf;
  std::string end = "if";
  while (end != "endif") {
    Branch& branch = statement->branches.emplace_back();
    if (end != "else") {
      PALIMPSEST_ASSIGN_OR_RETURN(branch.condition, in_.ParseTuple(false));
    }
    PALIMPSEST_RETURN_IF_ERROR(TagEnd());
    if (end == "else") {
      PALIMPSEST_RETURN_IF_ERROR(ParseBody({"endif"}, &branch.body, &end));
    } else {
      PALIMPSEST_RETURN_IF_ERROR(ParseBody({"elif", "else", "endif"}, &branch.body, &end));
    }
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseFor(Statement* statement) {
  statement->kind = Kind::kFor;
  PALIMPSEST_ASSIGN_OR_RETURN(statement->target, ParseTarget(false));
  if (!in_.SkipName("in")) return in_.ErrorHere("expected 'in', found {}", in_.Describe());
  PALIMPSEST_ASSIGN_OR_RETURN(statement->expression, in_.ParseTuple(false));
  if (in_.SkipName("if")) {
    PALIMPSEST_ASSIGN_OR_RETURN(statement->condition, in_.Parse());
  }
  if (in_.current().IsName("recursive")) return in_.ErrorHere("'for ... recursive' is not supported");
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  std::string end;
  PALIMPSEST_RETURN_IF_ERROR(ParseInner({true, false}, {"else", "endfor"}, &statement->body, &end));
  if (end == "endfor") return absl::OkStatus();
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return ParseInner({false, false}, {"endfor"}, &statement->else_body);
}

absl::Status Parser::ParseSet(Statement* statement) {
  PALIMPSEST_ASSIGN_OR_RETURN(statement->target, ParseTarget(true));
  if (in_.Skip("=")) {
    statement->kind = Kind::kSet;
    PALIMPSEST_ASSIGN_OR_RETURN(statement->expression, in_.ParseTuple(true));
    return absl::OkStatus();
  }
  statement->kind = Kind::kSetBlock;
  if (in_.current().Is("|")) {
    PALIMPSEST_ASSIGN_OR_RETURN(statement->filter, in_.ParseBlockFilters());
  }
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return ParseInner({false, false}, {"endset"}, &statement->body);
}

absl::Status Parser::ParseMacro(Statement* statement) {
  statement->kind = Kind::kMacro;
  if (!place_.top_level) {
    return in_.ErrorHere(
        "a macro inside a loop, macro or other block is not supported; define it at the top level");
  }
  PALIMPSEST_ASSIGN_OR_RETURN(statement->text, in_.ExpectName("the macro's name"));
  PALIMPSEST_RETURN_IF_ERROR(in_.Expect("("));
  while (!in_.current().Is(")")) {
    Parameter& parameter = statement->parameters.emplace_back();
    PALIMPSEST_ASSIGN_OR_RETURN(parameter.name, in_.ExpectName("the name of a parameter"));
    if (in_.Skip("=")) {
      PALIMPSEST_ASSIGN_OR_RETURN(parameter.fallback, in_.Parse());
    } else if (statement->parameters.size() > 1 && (statement->parameters.end() - 2)->fallback != nullptr) {
      return in_.ErrorHere("the parameter '{}' has no default but follows one that has", parameter.name);
    }
    if (!in_.Skip(",")) break;
  }
  PALIMPSEST_RETURN_IF_ERROR(in_.Expect(")"));
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return ParseInner({false, false}, {"endmacro"}, &statement->body);
}

absl::Status Parser::ParseFilterBlock(Statement* statement) {
  statement->kind = Kind::kFilter;
  PALIMPSEST_ASSIGN_OR_RETURN(statement->filter, in_.ParseBlockFilters());
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return ParseInner({false, false}, {"endfilter"}, &statement->body);
}

absl::Status Parser::ParseWith(Statement* statement) {
  statement->kind = Kind::kWith;
  while (in_.current().kind != Token::Kind::kBlockEnd) {
    PALIMPSEST_ASSIGN_OR_RETURN(std::string name, in_.ExpectName("a name to assign to"));
    PALIMPSEST_RETURN_IF_ERROR(in_.Expect("="));
    PALIMPSEST_ASSIGN_OR_RETURN(ExpressionPtr value, in_.Parse());
    Target target;
    target.names.push_back(std::move(name));
    statement->assignments.emplace_back(std::move(target), std::move(value));
    if (!in_.Skip(",")) break;
  }
  PALIMPSEST_RETURN_IF_ERROR(TagEnd());
  return ParseInner({false, false}, {"endwith"}, &statement->body);
}

absl::StatusOr<Target> Parser::ParseTarget(bool with_attribute) {
  static constexpr std::string_view kFixed[] = {"true", "True", "false", "False", "none", "None"};
  Target target;
  const bool parenthesis = in_.Skip("(");
  do {
    if (!target.names.empty() && in_.current().kind != Token::Kind::kName) {
      target.unpacks = true;  // "a, =": a trailing comma
      break;
    }
    PALIMPSEST_ASSIGN_OR_RETURN(std::string name, in_.ExpectName("a name to assign to"));
    if (std::find(std::begin(kFixed), std::end(kFixed), name) != std::end(kFixed)) {
      return in_.ErrorHere("'{}' cannot be assigned to", name);
    }
    if (name == "in" && !target.names.empty()) return in_.ErrorHere("a trailing comma here is not supported");
    target.names.push_back(std::move(name));
  } while (in_.Skip(","));
  target.unpacks = target.unpacks || target.names.size() > 1;
  if (parenthesis) {
    PALIMPSEST_RETURN_IF_ERROR(in_.Expect(")"));
  }
  if (with_attribute && !target.unpacks && in_.Skip(".")) {
    PALIMPSEST_ASSIGN_OR_RETURN(target.attribute, in_.ExpectName("the name of an attribute"));
  }
  return target;
}

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace palimpsest::jinja
