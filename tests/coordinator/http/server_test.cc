// What a well-behaved client gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>
#include <vector>

#include "coordinator/http/http_server.h"
#include "proto/base/status.h"
#include "tests/coordinator/http/server_fixture.h"

namespace palimpsest::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Server = ServerTest;

TEST_F(Server, AnswersAndKeepsTheConnection) {
  Start();
  Client client(server->port());
  for (int i = 0; i < 3; ++i) {
    const Answer answer = client.Get("/hello");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "hello");
    EXPECT_THAT(answer.headers.at("x-request-id"), StartsWith("req-"));
    EXPECT_FALSE(answer.headers.contains("connection"));
  }
  EXPECT_EQ(server->counts().connections, 1);
}

TEST_F(Server, PathsAreDecodedAndParametersTaken) {
  Start();
  Client client(server->port());
  EXPECT_EQ(client.Get("/items/a%20b").body, "a b");
  EXPECT_EQ(client.Get("http://elsewhere/items/c?x=1").body, "c");
  EXPECT_EQ(client.Get("/items/%zz").status, 400);
  EXPECT_EQ(client.Get("/items/%00").status, 400);
  EXPECT_EQ(client.Get("/hello?a=1&a=2").status, 400);
}

TEST_F(Server, StreamsAreChunksInOrder) {
  Start();
  Client client(server->port());
  std::string expected;
  for (int i = 0; i < 500; ++i) expected += fmt::format("part {}\n", i);
  const Answer answer = client.Get("/stream?parts=500");
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.body, expected);
  EXPECT_EQ(client.Get("/hello").body, "hello") << "the connection goes on after a stream";
}

TEST_F(Server, OldClientsGetAnswersWithoutChunks) {
  Start();
  Client client(server->port());
  client.Send("GET /stream?parts=2 HTTP/1.0\r\n\r\n");
  const Answer answer = client.Receive();
  EXPECT_EQ(answer.body, "part 0\npart 1\n");
  EXPECT_FALSE(answer.headers.contains("transfer-encoding"));
  EXPECT_EQ(answer.headers.at("connection"), "close");
}

TEST_F(Server, HeadHasTheHeadersOnly) {
  Start();
  Client client(server->port());
  client.Send(
      "HEAD /hello HTTP/1.1\r\nHost: localhost\r\n\r\nGET /items/7 HTTP/1.1\r\nHost: "
      "localhost\r\nConnection: close\r\n\r\n");
  std::string all;
  for (std::string some; !(some = client.ReceiveSome()).empty();) all += some;
  EXPECT_THAT(all, HasSubstr("Content-Length: 5\r\n"));
  EXPECT_THAT(all, Not(HasSubstr("hello")));
  EXPECT_THAT(all, ::testing::EndsWith("\r\n\r\n7"));
}

TEST_F(Server, BodiesComeWholeWhateverTheirForm) {
  Start();
  Client client(server->port());
  const std::string body(200'000, 'b');
  EXPECT_EQ(client.Post("/echo", body).body, body);
  EXPECT_EQ(client.Post("/echo", "").body, "");
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n");
  EXPECT_EQ(client.Receive().body, "abcde");
  EXPECT_EQ(client.Get("/hello").body, "hello");
}

TEST_F(Server, AClientThatAsksFirstIsToldToGoOn) {
  Start();
  Client client(server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReceiveSome(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("data");
  EXPECT_EQ(client.Receive().body, "data");
}

TEST_F(Server, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  Client client(server->port());
  std::string requests;
  for (int i = 0; i < 200; ++i)
    requests += fmt::format("GET /items/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", i);
  client.Send(requests);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.Receive().body, std::to_string(i));
}

TEST_F(Server, RequestIdsComeBackIfWellFormed) {
  Start();
  Client client(server->port());
  EXPECT_EQ(client.Get("/hello", "X-Request-Id: my.id_7-a\r\n").headers.at("x-request-id"), "my.id_7-a");
  EXPECT_THAT(client.Get("/hello", "X-Request-Id: bad id\r\n").headers.at("x-request-id"),
              StartsWith("req-"));
  EXPECT_EQ(client.Get("/none", "X-Request-Id: seven\r\n").headers.at("x-request-id"), "seven");
}

TEST_F(Server, UnknownPathsAndWrongMethodsHaveTheErrorBody) {
  Start();
  Client client(server->port());
  const Answer missing = client.Get("/SECRETPATH");
  EXPECT_EQ(missing.status, 404);
  EXPECT_THAT(missing.body, AllOf(HasSubstr(R"("type":"not_found_error")"), HasSubstr(R"("param":null)")));
  EXPECT_THAT(missing.body, Not(HasSubstr("SECRETPATH")));
  client.Send("OPTIONS /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 204);
  const Answer method = client.Get("/echo");
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.headers.at("allow"), "POST, OPTIONS");
}

TEST_F(Server, UploadsGoToDiskAndAreRemoved) {
  std::filesystem::create_directories(options.upload_folder);
  std::ofstream(options.upload_folder + "/upload-1-1") << "left by a process that died";
  Start();
  Client client(server->port());
  const Answer answer = client.Post("/upload", "12345678" + std::string(3 << 20, 'u'));
  EXPECT_EQ(answer.body, fmt::format("{} 12345678", 8 + (3 << 20)));
  EXPECT_EQ(client.Post("/upload", "").body, "0 ");
  EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(options.upload_folder); }));
}

TEST_F(Server, FiftyStreamsAtOnceAreWhole) {
  Start();
  Client(server->port()).Get("/hello");  // the I/O thread opens its own when it is first needed
  ASSERT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  const int64_t before = OpenDescriptors();
  std::atomic<int> whole{0};
  {
    std::vector<std::thread> clients;
    for (int i = 0; i < 50; ++i) {
      clients.emplace_back([&] {
        Client client(server->port());
        const Answer answer = client.Get("/stream?parts=2000");
        whole += answer.whole && answer.body.ends_with("part 1999\n") ? 1 : 0;
      });
    }
    for (std::thread& client : clients) client.join();
  }
  EXPECT_EQ(whole, 50);
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() <= before; })) << OpenDescriptors() << " " << before;
}

TEST_F(Server, CountsRequestsByRoute) {
  Start();
  Client client(server->port());
  client.Get("/items/one");
  client.Get("/items/two");
  client.Get("/none");
  EXPECT_TRUE(Eventually([&] {
    return metrics->Text().find(
               R"(palimpsest_http_requests_total{code="200",listener="api",route="/items/{id}"} 2)") !=
           std::string::npos;
  })) << metrics->Text();
  EXPECT_THAT(metrics->Text(),
              HasSubstr(R"(palimpsest_http_requests_total{code="404",listener="api",route="none"} 1)"));
  EXPECT_THAT(metrics->Text(), HasSubstr(R"(palimpsest_http_connections{listener="api"} 1)"));
}

TEST_F(Server, DrainLetsAnswersEndAndClosesTheIdle) {
  Start();
  Client idle(server->port()), busy(server->port());
  idle.Get("/hello");
  busy.Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return working == 1; }));
  std::atomic<bool> clean{false};
  std::thread drain([&] { clean = server->Drain(std::chrono::seconds(20)); });
  EXPECT_TRUE(idle.ClosedWithin(5));
  EXPECT_EQ(gone, 0);
  release = true;
  const Answer answer = busy.Receive();
  EXPECT_EQ(answer.body, "worked");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(busy.ClosedWithin(5));
  drain.join();
  EXPECT_TRUE(clean);
}

TEST_F(Server, DrainCutsWhatTakesTooLong) {
  Start();
  Client busy(server->port());
  busy.Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return working == 1; }));
  EXPECT_FALSE(server->Drain(std::chrono::milliseconds(200)));
  EXPECT_EQ(gone, 1);
  EXPECT_TRUE(busy.ClosedWithin(5));
}

TEST_F(Server, APortInUseNamesTheSetting) {
  Start();
  HttpServer::Options second = options;
  second.port = server->port();
  Router router;
  const auto started = HttpServer::Start(second, std::move(router));
  EXPECT_EQ(started.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(started.status()), AllOf(HasSubstr("server.port"), HasSubstr("0: any free")));
}

TEST_F(Server, OtherMachinesNeedAKeyOrConsent) {
  options.host = "0.0.0.0";
  const auto refused = HttpServer::Start(options, Router());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(refused.status()), HasSubstr("server.api_keys_file"));
  options.config.server.insecure = true;
  Start();
  Client client(server->port());
  client.Send("GET /hello HTTP/1.1\r\nHost: their.name.of.it\r\n\r\n");
  EXPECT_EQ(client.Receive().body, "hello");
}

TEST_F(Server, AnAddressOfNoMachineIsRefused) {
  options.host = "no such host";
  EXPECT_THAT(Message(HttpServer::Start(options, Router()).status()), HasSubstr("server.host"));
  options.host = "192.0.2.77";
  EXPECT_THAT(Message(HttpServer::Start(options, Router()).status()), HasSubstr("server.host"));
}

}  // namespace
}  // namespace palimpsest::http
