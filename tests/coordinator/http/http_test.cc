#include "coordinator/http/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/http/request_check.h"
#include "coordinator/http/request_parser.h"
#include "coordinator/http/target.h"
#include "proto/base/log.h"
#include "proto/base/status.h"
#include "tests/coordinator/http/sent_response.h"

namespace palimpsest::http {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Router MakeRouter() {
  Router router;
  for (const auto& [method, pattern] : {std::pair{"GET", "/v1/documents"},
                                        {"POST", "/v1/documents"},
                                        {"GET", "/v1/documents/{id}"},
                                        {"DELETE", "/v1/documents/{id}"},
                                        {"GET", "/v1/documents/{id}/text"},
                                        {"GET", "/v1/documents/latest"}}) {
    router.Add({method, pattern, Route::Body::kNone, Route::Access::kOpen, [](const Request&, Response&) {}});
  }
  return router;
}

TEST(Router, TheMostLiteralPatternWins) {
  const Router router = MakeRouter();
  EXPECT_EQ(router.Find("GET", "/v1/documents/latest").route->pattern, "/v1/documents/latest");
  const auto match = router.Find("GET", "/v1/documents/doc-1");
  EXPECT_EQ(match.route->pattern, "/v1/documents/{id}");
  EXPECT_EQ(match.parameters.at("id"), "doc-1");
  EXPECT_EQ(router.Find("DELETE", "/v1/documents/latest").route->pattern, "/v1/documents/{id}");
}

TEST(Router, AWrongMethodIsToldTheRightOnes) {
  const auto match = MakeRouter().Find("PUT", "/v1/documents/x");
  EXPECT_EQ(match.route, nullptr);
  EXPECT_THAT(match.allowed, ElementsAre("DELETE", "GET"));
}

TEST(Router, WhatIsNotThereIsNotThere) {
  const Router router = MakeRouter();
  for (const char* path : {"/", "", "*", "/v1", "/v1/documents/", "/v1/documents//text", "/v1/documents/a/b",
                           "/V1/documents", "/v1/documents/a/text/"}) {
    EXPECT_EQ(router.Find("GET", path).route, nullptr) << path;
    EXPECT_THAT(router.Find("GET", path).allowed, IsEmpty()) << path;
  }
}

TEST(Router, ARouteMayTakeTheRestOfThePath) {
  Router router;
  router.Add({"GET", "/v1/models/{id}", Route::Body::kNone, Route::Access::kOpen,
              [](const Request&, Response&) {}, /*takes_rest=*/true});
  EXPECT_EQ(router.Find("GET", "/v1/models/a").parameters.at("id"), "a");
  EXPECT_EQ(router.Find("GET", "/v1/models/a/b//c/").parameters.at("id"), "a/b//c/");
  EXPECT_THAT(router.Find("PUT", "/v1/models/a/b").allowed, ElementsAre("GET"));
  for (const char* path : {"/v1/models", "/v1/models/", "/v1/model/a/b"}) {
    EXPECT_EQ(router.Find("GET", path).route, nullptr) << path;
  }
}

TEST(Page, OfAnotherSiteIsRefused) {
  const std::string host = "10.0.0.7:8080";
  const auto status = [&](Headers headers, bool https = false) {
    headers.emplace("host", host);
    return CheckPage(headers, https, /*loopback=*/false).status;
  };
  EXPECT_EQ(status({}), 0);
  EXPECT_EQ(status({{"sec-fetch-site", "same-origin"}, {"origin", "http://" + host}}), 0);
  EXPECT_EQ(status({{"sec-fetch-site", "none"}}), 0);
  EXPECT_EQ(status({{"origin", "https://" + host}}, /*https=*/true), 0);
  EXPECT_EQ(status({{"sec-fetch-site", "cross-site"}}), 403);
  for (const char* origin : {"", "null", "http://evil.example", "https://10.0.0.7:8080", "http://10.0.0.7",
                             "http://10.0.0.7:8080.evil.example"}) {
    EXPECT_EQ(status({{"origin", origin}}), 403) << origin;
  }
  EXPECT_EQ(CheckPage({{"origin", "http://"}, {"sec-fetch-site", "cross-site"}}, false, false).status, 403);
  EXPECT_THAT(CheckPage({{"host", host}, {"origin", "null"}}, false, false).message,
              AllOf(HasSubstr(host), HasSubstr("server.api_keys_file")));
}

TEST(Page, OnLoopbackOnlyNamesOfThisMachineAreTaken) {
  const auto status = [](const char* host) { return CheckPage({{"host", host}}, false, true).status; };
  for (const char* host : {"localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:80", "127.8.9.1:1", "[::1]",
                           "[::1]:8080", "[::ffff:127.0.0.1]:8080"}) {
    EXPECT_EQ(status(host), 0) << host;
  }
  for (const char* host :
       {"", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
        "10.0.0.7:8080", "0.0.0.0:8080", "::1", "[::1", "[::2]:8080", "127.1", "localhost:8080:1"}) {
    EXPECT_EQ(status(host), 403) << host;
  }
  EXPECT_EQ(CheckPage({}, false, true).status, 0) << "HTTP/1.0, which no browser speaks";
  EXPECT_EQ(CheckPage({{"host", "myhost:8080"}}, false, true, "myhost").status, 0);
  EXPECT_EQ(CheckPage({{"host", "theirs:8080"}}, false, true, "myhost").status, 403);
  EXPECT_EQ(CheckPage({{"host", "evil.example"}}, false, /*loopback=*/false).status, 0);
  EXPECT_THAT(CheckPage({{"host", "evil.example"}}, false, true).message,
              AllOf(HasSubstr("'evil.example'"), HasSubstr("localhost"), HasSubstr("server.api_keys_file")));
}

TEST(Errors, BodiesAreJsonWhateverTheMessage) {
  EXPECT_EQ(
      ErrorBody(400, "a \"b\"\n\\", "c", "p"),
      R"({"error":{"message":"a \"b\"\u000a\\","type":"invalid_request_error","code":"c","param":"p"}})");
  EXPECT_THAT(ErrorBody(503, "x"), HasSubstr(R"("type":"server_error","code":null,"param":null)"));
  EXPECT_THAT(ErrorBody(400, "snow \xE2\x98\x83"), HasSubstr("snow \xE2\x98\x83"));
  EXPECT_THAT(ErrorBody(400, "bad \xC3("), HasSubstr(R"(bad \\xc3()"));
}

TEST(Errors, EachHasItsStatus) {
  using absl::StatusCode;
  const auto status = [](StatusCode code) { return HttpStatusOf(Error(code, "x")); };
  EXPECT_EQ(HttpStatusOf(absl::OkStatus()), 200);
  EXPECT_EQ(status(StatusCode::kInvalidArgument), 400);
  EXPECT_EQ(status(StatusCode::kUnimplemented), 400);
  EXPECT_EQ(status(StatusCode::kPermissionDenied), 403);
  EXPECT_EQ(status(StatusCode::kNotFound), 404);
  EXPECT_EQ(status(StatusCode::kFailedPrecondition), 409);
  EXPECT_EQ(status(StatusCode::kCancelled), 499);
  EXPECT_EQ(status(StatusCode::kInternal), 500);
  EXPECT_EQ(status(StatusCode::kDataLoss), 500);
  EXPECT_EQ(status(StatusCode::kUnavailable), 503);
  EXPECT_EQ(status(StatusCode::kDeadlineExceeded), 504);
  EXPECT_EQ(status(StatusCode::kResourceExhausted), 507);
  EXPECT_EQ(HttpStatusOf(WithRetryAfter(ResourceExhausted("x"), 3)), 429);
}

TEST(Errors, InternalDetailsStayInTheLog) {
  SentResponse sent;
  std::string log;
  InitLog({.sink = [&](std::string_view line) { log += line; }});
  SendError(sent, Internal("the table at 0x1234 is broken"));
  InitLog({});
  EXPECT_EQ(sent.status, 500);
  EXPECT_THAT(sent.body, Not(HasSubstr("0x1234")));
  EXPECT_THAT(log, AllOf(HasSubstr("request r-1 "), HasSubstr("0x1234")));
}

TEST(Errors, RefusalsSayWhenToComeAgain) {
  SentResponse sent;
  SendError(sent, WithRetryAfter(Error(absl::StatusCode::kUnavailable, "9 wait"), 7));
  EXPECT_EQ(sent.status, 503);
  EXPECT_EQ(sent.more.at("retry-after"), "7");
  SendError(sent, InvalidArgument("no"), "max_tokens");
  EXPECT_THAT(sent.body, HasSubstr(R"("param":"max_tokens")"));
  EXPECT_THAT(sent.more, IsEmpty());
}

// The state after all of `bytes`, given `step` bytes at a time.
RequestParser::State ParseInSteps(RequestParser& parser, const std::string& bytes, size_t step,
                                  std::string& body) {
  std::string ahead;
  for (size_t at = 0; at < bytes.size(); at += step) {
    ahead += bytes.substr(at, step);
    for (;;) {
      size_t used = 0;
      const auto state = parser.Put(ahead, used);
      ahead.erase(0, used);
      if (state == RequestParser::State::kBody) body += parser.body();
      if (state == RequestParser::State::kDone || state == RequestParser::State::kFailed) return state;
      if (state == RequestParser::State::kNeedMore) break;
    }
  }
  return RequestParser::State::kNeedMore;
}

TEST(Parser, TheSameWhateverThePieces) {
  const std::string request =
      "\r\nPOST /x?y HTTP/1.1\r\nHost: h\r\nA: 1\r\na: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
      "4;e=1\r\nwiki\r\n3\r\nbcd\r\n0\r\nTrailer: t\r\n\r\n";
  for (const size_t step : {size_t{1}, size_t{2}, size_t{7}, request.size()}) {
    const auto parser = RequestParser::Create({16 << 10, 100});
    std::string body;
    ASSERT_EQ(ParseInSteps(*parser, request, step, body), RequestParser::State::kDone)
        << step << " " << parser->failure().message;
    EXPECT_EQ(body, "wikibcd");
    EXPECT_EQ(parser->head().headers.at("a"), "1, 2");
    EXPECT_FALSE(parser->head().headers.contains("trailer"));
  }
}

TEST(Parser, WhatTwoReadersCouldTakeDifferentlyIsRefused) {
  const std::string post = "POST /x HTTP/1.1\r\nHost: h\r\n";
  const struct {
    std::string request;
    int status;
  } cases[] = {
      {post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400},
      {post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400},
      {post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
      {post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
      {post + "Content-Length: +3\r\n\r\nabc", 400},
      {post + "Content-Length: -3\r\n\r\nabc", 400},
      {post + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
      {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400},
      {post + "Name : x\r\n\r\n", 400},
      {post + "Host: other\r\n\r\n", 400},
      {post + "Expect: a-miracle\r\n\r\n", 417},
      {"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET /x HTTP/1.1\r\n\r\n", 400},
      {"GET /x HTTP/2.0\r\nHost: h\r\n\r\n", 400},
      {"GET /x\r\n\r\n", 400},
      {"G@T /x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03", 11), 400},
  };
  for (const auto& [request, status] : cases) {
    const auto parser = RequestParser::Create({16 << 10, 100});
    std::string body;
    EXPECT_EQ(ParseInSteps(*parser, request, request.size(), body), RequestParser::State::kFailed) << request;
    EXPECT_EQ(parser->failure().status, status) << request << parser->failure().message;
  }
}

TEST(Target, RequestIdsAreShortAndPlain) {
  EXPECT_TRUE(IsRequestId("a-Z_0.9"));
  EXPECT_TRUE(IsRequestId(std::string(128, 'x')));
  EXPECT_FALSE(IsRequestId(""));
  EXPECT_FALSE(IsRequestId(std::string(129, 'x')));
  EXPECT_FALSE(IsRequestId("a b"));
  EXPECT_TRUE(IsRequestId(NewRequestId()));
  EXPECT_NE(NewRequestId(), NewRequestId());
}

TEST(Target, QueriesAreDecoded) {
  std::string path;
  std::map<std::string, std::string> query;
  ASSERT_TRUE(DecodeTarget("/a%2Fb?name=x+y%26z&empty=&flag&&u=%C3%A9", path, query).ok());
  EXPECT_EQ(path, "/a/b");
  EXPECT_EQ(query, (std::map<std::string, std::string>{
                       {"name", "x y&z"}, {"empty", ""}, {"flag", ""}, {"u", "\xC3\xA9"}}));
  for (const char* bad : {"", "a", "/%", "/%4", "/%g1", "/?a=%", "http://host", "/?a&a"}) {
    EXPECT_FALSE(DecodeTarget(bad, path, query).ok()) << bad;
  }
  EXPECT_THAT(Message(DecodeTarget("/?wait=1&wait=2", path, query)), HasSubstr("'wait' twice"));
}

}  // namespace
}  // namespace palimpsest::http
