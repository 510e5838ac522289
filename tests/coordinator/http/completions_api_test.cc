// Answers over HTTP, as clients see them: the handlers with a scripted coordinator behind them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <thread>

#include "coordinator/http/answer_sinks.h"
#include "coordinator/http/api.h"
#include "proto/base/log.h"
#include "tests/coordinator/http/fakes.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;
using ::palimpsest::testing::Done;
using ::palimpsest::testing::FakeCoordinator;
using ::palimpsest::testing::FakeResponse;
using ::palimpsest::testing::kFakeEnd;
using ::palimpsest::testing::Token;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CompletionsApiTest : public ::testing::Test {
 protected:
  void Call(const std::string& path, const std::string& body, const std::string& type = "application/json") {
    const Router router = MakePublicRouter({.coordinator = &coordinator_, .metrics = nullptr, .config = {}});
    const Router::Match match = router.Find("POST", path);
    ASSERT_NE(match.route, nullptr);
    Request request;
    request.method = "POST";
    request.path = path;
    request.body = body;
    request.tenant = "team-a";
    request.request_id = "r-1";
    request.headers["content-type"] = type;
    match.route->handler(request, response_);
  }
  void Chat(const std::string& more = "") {
    Call("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "q"}])" + more + "}");
  }
  void Complete(const std::string& more = "") { Call("/v1/completions", R"({"prompt": "q")" + more + "}"); }

  // "ab" in as many choices as asked for, then an end token; nothing of a script fails.
  static absl::Status SayAb(const AnswerRequest& request, AnswerSink& sink, const CancelToken&) {
    if (!sink.OnStart(10, {"doc-0000000000000001"}) || !sink.OnPrefill(10, 10)) return absl::CancelledError();
    for (const char byte : {'a', 'b'}) {
      for (int64_t choice = 0; choice < request.choices; ++choice) {
        proto::TokenEvent token = Token(byte - 'a', byte, -0.5);
        if (request.top_logprobs > 0) {
          proto::TokenLogprob* const top = token.add_top();
          top->set_token(byte);
          top->set_logprob(-0.5);
        }
        if (!sink.OnToken(choice, token)) return absl::CancelledError();
      }
    }
    for (int64_t choice = 0; choice < request.choices; ++choice) {
      proto::TokenEvent end = Token(2, 'x', -0.1);
      end.set_token(kFakeEnd);
      end.clear_text();
      if (!sink.OnToken(choice, end) || !sink.OnDone(choice, Done(10, 2, 4))) return absl::CancelledError();
    }
    return absl::OkStatus();
  }

  json::value Body() const { return json::parse(response_.body()); }
  // The data of each event, [DONE] too; comments are left out.
  std::vector<std::string> Events() const {
    std::vector<std::string> events;
    std::string body = response_.body();
    for (size_t end; (end = body.find("\n\n")) != std::string::npos; body.erase(0, end + 2)) {
      if (body.starts_with("data: ")) events.push_back(body.substr(6, end - 6));
    }
    EXPECT_EQ(body, "");
    return events;
  }

  FakeCoordinator coordinator_;
  FakeResponse response_;
};

// Everything but what differs each time and the receipt, whose form has its own test.
std::string Golden(json::value value) {
  json::object& object = value.as_object();
  EXPECT_THAT(std::string(object.at("id").as_string()),
              ::testing::ContainsRegex("^(chat)?cmpl-[0-9a-f]{32}$"));
  object.stable_erase("id");
  EXPECT_GT(object.at("created").as_int64(), 1'700'000'000);
  object.stable_erase("created");
  if (object.contains("palimpsest")) {
    json::object& own = object.at("palimpsest").as_object();
    EXPECT_EQ(own.at("receipt").at("policy").as_string(), "full");
    own.stable_erase("receipt");
  }
  return json::serialize(value);
}

TEST_F(CompletionsApiTest, WholeChatAnswer) {
  coordinator_.script = SayAb;
  Chat(R"(, "max_tokens": 9)");
  EXPECT_EQ(response_.status(), 200) << response_.body();
  EXPECT_EQ(response_.type(), "application/json");
  EXPECT_EQ(
      Golden(Body()),
      R"({"object":"chat.completion","model":"tiny","system_fingerprint":"fp_aaaaaaaaaaaa",)"
      R"("choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"ab","refusal":null},)"
      R"("logprobs":null,"finish_reason":"stop"}],)"
      R"("usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,)"
      R"("prompt_tokens_details":{"cached_tokens":4}},"palimpsest":{"documents":["doc-0000000000000001"]}})");
  ASSERT_EQ(coordinator_.requests.size(), 1u);
  EXPECT_EQ(coordinator_.requests[0].tenant, "team-a");
  EXPECT_EQ(coordinator_.requests[0].request_id, "r-1");
  EXPECT_EQ(coordinator_.requests[0].sampling.max_tokens(), 9);
}

TEST_F(CompletionsApiTest, WholeCompletion) {
  coordinator_.script = SayAb;
  Complete();
  EXPECT_EQ(
      Golden(Body()),
      R"({"object":"text_completion","model":"tiny","system_fingerprint":"fp_aaaaaaaaaaaa",)"
      R"("choices":[{"index":0,)"
      R"("text":"ab","logprobs":null,"finish_reason":"stop"}],)"
      R"("usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,)"
      R"("prompt_tokens_details":{"cached_tokens":4}},"palimpsest":{"documents":["doc-0000000000000001"]}})");
}

TEST_F(CompletionsApiTest, SeveralChoicesEachHaveTheirReceipt) {
  coordinator_.script = SayAb;
  Chat(R"(, "n": 2)");
  const json::value body = Body();
  ASSERT_EQ(body.at("choices").as_array().size(), 2u);
  EXPECT_EQ(body.at("choices").at(1).at("index").as_int64(), 1);
  EXPECT_EQ(body.at("choices").at(1).at("message").at("content").as_string(), "ab");
  EXPECT_EQ(body.at("usage").at("completion_tokens").as_int64(), 4);
  EXPECT_EQ(body.at("usage").at("prompt_tokens").as_int64(), 10);
  EXPECT_EQ(body.at("palimpsest").at("receipts").as_array().size(), 2u);
}

TEST_F(CompletionsApiTest, ChatLogprobsTellTokensButNotTheEnd) {
  coordinator_.script = SayAb;
  Chat(R"(, "logprobs": true, "top_logprobs": 1)");
  EXPECT_EQ(json::serialize(Body().at("choices").at(0).at("logprobs").at("content").at(0)),
            R"({"token":"a","logprob":-5E-1,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-5E-1,)"
            R"("bytes":[97]}]})");
  EXPECT_EQ(Body().at("choices").at(0).at("logprobs").at("content").as_array().size(), 2u);
}

TEST_F(CompletionsApiTest, CompletionLogprobsAreInColumns) {
  coordinator_.script = SayAb;
  Complete(R"(, "logprobs": 1)");
  EXPECT_EQ(json::serialize(Body().at("choices").at(0).at("logprobs")),
            R"({"tokens":["a","b"],"token_logprobs":[-5E-1,-5E-1],"top_logprobs":[{"a":-5E-1},{"b":-5E-1}],)"
            R"("text_offset":[0,1]})");
}

TEST_F(CompletionsApiTest, BytesThatAreNoTextAreReplacedAndTold) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink& sink, const CancelToken&) {
    sink.OnStart(1, {});
    proto::TokenEvent half = Token(0, '\xe2');
    half.clear_text();
    sink.OnToken(0, half);
    sink.OnDone(0, Done(1, 1));
    return absl::OkStatus();
  };
  Chat(R"(, "logprobs": true)");
  const json::value token = Body().at("choices").at(0).at("logprobs").at("content").at(0);
  EXPECT_EQ(token.at("token").as_string(), "\uFFFD");
  EXPECT_EQ(token.at("bytes").at(0).as_int64(), 0xe2);
}

TEST_F(CompletionsApiTest, StreamIsRoleTokensEndAndDone) {
  coordinator_.script = SayAb;
  Chat(R"(, "stream": true)");
  EXPECT_EQ(response_.status(), 200);
  EXPECT_EQ(response_.type(), "text/event-stream");
  EXPECT_TRUE(response_.ended());
  const std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), 5u) << response_.body();
  const std::string frame =
      R"({"object":"chat.completion.chunk","model":"tiny","system_fingerprint":"fp_aaaaaaaaaaaa",)"
      R"("choices":[)";
  EXPECT_EQ(
      Golden(json::parse(events[0])),
      frame +
          R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(Golden(json::parse(events[1])),
            frame + R"({"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(Golden(json::parse(events[3])),
            frame + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],)"
                    R"("palimpsest":{"documents":["doc-0000000000000001"]}})");
  EXPECT_EQ(events[4], "[DONE]");
  EXPECT_EQ(json::parse(events[0]).at("id"), json::parse(events[3]).at("id"));
}

TEST_F(CompletionsApiTest, StreamEndsWithUsageWhenAsked) {
  coordinator_.script = SayAb;
  Complete(R"(, "n": 2, "stream": true, "stream_options": {"include_usage": true})");
  const std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), 8u) << response_.body();
  EXPECT_TRUE(json::parse(events[0]).at("usage").is_null());
  const json::value usage = json::parse(events[6]);
  EXPECT_TRUE(usage.at("choices").as_array().empty());
  EXPECT_EQ(usage.at("usage").at("completion_tokens").as_int64(), 4);
  EXPECT_EQ(events[7], "[DONE]");
}

TEST_F(CompletionsApiTest, StreamedLogprobsGoOnWhereTheyWere) {
  coordinator_.script = SayAb;
  Complete(R"(, "stream": true, "logprobs": 0)");
  const std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), 4u) << response_.body();
  EXPECT_EQ(json::parse(events[1]).at("choices").at(0).at("logprobs").at("text_offset").at(0).as_int64(), 1);
}

TEST_F(CompletionsApiTest, RestOfTheTextComesWithTheEnd) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink& sink, const CancelToken&) {
    sink.OnStart(1, {});
    proto::DoneEvent done = Done(1, 1, 0, "length");
    done.set_text("rest");
    sink.OnDone(0, done);
    return absl::OkStatus();
  };
  Chat(R"(, "stream": true)");
  const json::value last = json::parse(Events().at(1));
  EXPECT_EQ(last.at("choices").at(0).at("delta").at("content").as_string(), "rest");
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason").as_string(), "length");
}

TEST_F(CompletionsApiTest, FailureBeforeTheStreamHasItsStatus) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink&, const CancelToken&) {
    return WithRetryAfter(Error(absl::StatusCode::kUnavailable, "129 requests wait"), 7);
  };
  Chat(R"(, "stream": true)");
  EXPECT_EQ(response_.status(), 503);
  EXPECT_EQ(response_.headers().at("retry-after"), "7");
  EXPECT_EQ(Body().at("error").at("message").as_string(), "129 requests wait");
}

TEST_F(CompletionsApiTest, FailureInTheStreamIsAnEventAndItsEnd) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink& sink, const CancelToken&) {
    sink.OnStart(1, {});
    sink.OnToken(0, Token(0, 'a'));
    return Error(absl::StatusCode::kUnavailable, "no worker came back");
  };
  Chat(R"(, "stream": true)");
  const std::vector<std::string> events = Events();
  EXPECT_EQ(json::parse(events.back()).at("error").at("message").as_string(), "no worker came back")
      << "and no [DONE]";
  EXPECT_TRUE(response_.ended());
}

TEST_F(CompletionsApiTest, InternalErrorsKeepTheirDetails) {
  for (const char* more : {"", R"(, "stream": true)"}) {
    std::string log;
    InitLog({.sink = [&](std::string_view line) { log += line; }});
    coordinator_.script = [](const AnswerRequest&, AnswerSink& sink, const CancelToken&) {
      sink.OnStart(1, {});
      return Internal("address 0x1234");
    };
    Chat(more);
    InitLog({});
    EXPECT_THAT(response_.body(), HasSubstr("internal error"));
    EXPECT_THAT(response_.body(), ::testing::Not(HasSubstr("0x1234")));
    EXPECT_THAT(log, AllOf(HasSubstr("request r-1 "), HasSubstr("0x1234")));
  }
}

TEST_F(CompletionsApiTest, PromptThatNeverFitsIsTheRequestsFault) {
  coordinator_.script = [this](const AnswerRequest& request, AnswerSink&, const CancelToken&) {
    return coordinator_.model()
        .planner
        ->PlanText(std::string(200, 'x') + std::get<std::vector<ChatMessage>>(request.prompt)[0].content,
                   {.prefill = PrefillChoice::kExact})
        .status();
  };
  Chat();
  EXPECT_EQ(response_.status(), 400);
  EXPECT_EQ(Body().at("error").at("code").as_string(), "context_length_exceeded");
  EXPECT_EQ(Body().at("error").at("param").as_string(), "messages");
  EXPECT_THAT(response_.body(), HasSubstr("201 tokens"));

  coordinator_.script = [](const AnswerRequest&, AnswerSink&, const CancelToken&) {
    return ResourceExhausted("needs 5 bytes of 4");
  };
  Chat();
  EXPECT_EQ(response_.status(), 400);
}

TEST_F(CompletionsApiTest, UnknownDocumentIsNamed) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink&, const CancelToken&) {
    return NotFound("document doc-9 does not exist");
  };
  Chat(R"(, "palimpsest": {"documents": ["doc-99999999"]})");
  EXPECT_EQ(response_.status(), 404);
  EXPECT_EQ(Body().at("error").at("param").as_string(), "palimpsest.documents");
}

TEST_F(CompletionsApiTest, ClientThatLeavesEndsTheAnswer) {
  bool refused = false, cancelled = false;
  coordinator_.script = [&](const AnswerRequest&, AnswerSink& sink, const CancelToken& cancel) {
    sink.OnStart(1, {});
    refused = !sink.OnToken(0, Token(0, 'a'));
    cancelled = cancel.IsSet();
    EXPECT_FALSE(sink.OnPrefill(1, 1));
    EXPECT_FALSE(sink.OnToken(0, Token(1, 'b')));
    return absl::CancelledError();
  };
  response_.TakeOnly(1);  // the role
  Chat(R"(, "stream": true)");
  EXPECT_TRUE(refused);
  EXPECT_TRUE(cancelled);
}

TEST_F(CompletionsApiTest, StopOfTheServerIsNotTheClientsFault) {
  coordinator_.script = [](const AnswerRequest&, AnswerSink&, const CancelToken&) {
    return absl::CancelledError();
  };
  Chat();
  EXPECT_EQ(response_.status(), 503);
  EXPECT_THAT(response_.body(), HasSubstr("stopping"));
}

TEST_F(CompletionsApiTest, OnlyJsonIsTaken) {
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", ""}) {
    Call("/v1/chat/completions", "{}", type);
    EXPECT_EQ(response_.status(), 415) << type;
  }
  Call("/v1/chat/completions", "{}", "Application/JSON; charset=utf-8");
  EXPECT_EQ(response_.status(), 400);
}

TEST(StreamingSinkTest, SaysThatItLivesWhileNothingComes) {
  FakeResponse response;
  const OpenAiFormat format({.model = "m", .fingerprint = "f", .tokenizer = testing::ByteTokenizer()});
  {
    StreamingSink sink(format, 1, response, std::chrono::milliseconds(2));
    sink.OnStart(1, {});
    for (int i = 0; i < 2000 && response.body().find(": wait\n\n: wait\n\n") == std::string::npos; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    sink.OnToken(0, Token(0, 'a'));
    sink.OnDone(0, Done(1, 1));
    sink.Finish(absl::OkStatus());
  }
  EXPECT_THAT(response.body(), StartsWith("data: "));
  EXPECT_THAT(response.body(), HasSubstr("\n\n: wait\n\n: wait\n\n"));
  EXPECT_TRUE(response.ended());
}

TEST(StreamingSinkTest, ClientThatLeftWhileNothingCameIsNoticed) {
  FakeResponse response;
  const OpenAiFormat format({.model = "m", .fingerprint = "f", .tokenizer = testing::ByteTokenizer()});
  StreamingSink sink(format, 1, response, std::chrono::milliseconds(1));
  response.TakeOnly(1);
  sink.OnStart(1, {});
  for (int i = 0; i < 2000 && !sink.cancel().IsSet(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(sink.cancel().IsSet());
  EXPECT_FALSE(sink.OnToken(0, Token(0, 'a')));
  sink.Finish(absl::CancelledError());
}

}  // namespace
}  // namespace palimpsest::http
