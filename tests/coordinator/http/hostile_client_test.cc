// What a misbehaving client gets, and what the others notice of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/coordinator/http/server_fixture.h"

namespace palimpsest::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using HostileClient = ServerTest;

TEST_F(HostileClient, SlowHeadersAreCutAndOthersServed) {
  options.config.limits.header_seconds = 1;
  Start();
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 40; ++i) {
    slow.push_back(std::make_unique<Client>(server->port()));
    slow.back()->Send("GET /hello HTTP/1.1\r\nHost: localhost\r\nX-A: ");
  }
  std::atomic<bool> stop{false};
  std::thread drip([&] {
    while (!stop) {
      for (const auto& client : slow) client->Send("b");
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  EXPECT_EQ(Connect().Get("/hello").body, "hello");
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }, 15));
  stop = true;
  drip.join();
  EXPECT_EQ(slow[7]->Receive().status, 408);
  EXPECT_EQ(calls, 1);
}

TEST_F(HostileClient, WhoSaysNothingIsClosed) {
  options.config.limits.header_seconds = 1;
  options.config.limits.keep_alive_seconds = 1;
  Start();
  Client silent(server->port()), once(server->port());
  once.Get("/hello");
  EXPECT_TRUE(silent.ClosedWithin(10));
  EXPECT_TRUE(once.ClosedWithin(10));
}

TEST_F(HostileClient, ManyHeadersAreRefusedWithoutBeingKept) {
  Start();
  Client few(server->port());
  std::string headers;
  for (int i = 0; i < 150; ++i) headers += fmt::format("A{}: b\r\n", i);
  const Answer refused = few.Get("/hello", headers);
  EXPECT_EQ(refused.status, 431);
  EXPECT_THAT(refused.body, HasSubstr("limits.headers"));

  Client many(server->port());
  many.Send("GET /hello HTTP/1.1\r\nHost: localhost\r\n");
  const int64_t before = ResidentBytes();
  for (int i = 0; i < 100'000; ++i) {
    if (!many.Send(fmt::format("Header-{}: some value that takes room\r\n", i))) break;
  }
  EXPECT_LT(GrowthSince(before), 16 << 20);
  EXPECT_EQ(many.Receive().status, 431);
}

TEST_F(HostileClient, ALargeBodyIsRefusedByItsHead) {
  Start();
  Client client(server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n");
  const Answer answer = client.Receive();
  EXPECT_EQ(answer.status, 413);
  EXPECT_THAT(answer.body,
              AllOf(HasSubstr("1073741824"), HasSubstr("8388608"), HasSubstr("limits.body_bytes")));
  EXPECT_EQ(calls, 0);
}

TEST_F(HostileClient, AnEndlessChunkedBodyIsCutWithFlatMemory) {
  options.config.limits.body_bytes = 1 << 20;
  Start();
  Client client(server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  const int64_t before = ResidentBytes();
  const std::string chunk = "40000\r\n" + std::string(256 << 10, 'x') + "\r\n";
  int sent = 0;
  for (; sent < 256; ++sent) {  // 64 MiB
    if (!client.Send(chunk)) break;
  }
  EXPECT_LT(GrowthSince(before), 16 << 20);
  const Answer answer = client.Receive();
  EXPECT_EQ(answer.status, 413);
  EXPECT_THAT(answer.body, AllOf(HasSubstr("1048576"), HasSubstr("limits.body_bytes")));
  EXPECT_EQ(calls, 0);
}

TEST_F(HostileClient, ChunkHeadsAndTrailersAreBounded) {
  Start();
  for (const char* begin : {"1;ext=", "0\r\nTrailer: "}) {
    Client client(server->port());
    client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.Send(begin);
    client.Send(std::string(1 << 20, 'e'));
    const int status = client.Receive().status;
    EXPECT_TRUE(status == 400 || status == 431) << status;
  }
}

TEST_F(HostileClient, ABodyThatStopsIsCut) {
  options.config.limits.idle_seconds = 1;
  Start();
  Client client(server->port());
  client.Send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome");
  const Answer answer = client.Receive();
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.body, HasSubstr("limits.idle_seconds"));
  EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(options.upload_folder); }));
}

TEST_F(HostileClient, ABodyThatBeginsFastMayNotTrickle) {
  options.config.limits.idle_seconds = 3;
  Start();
  Client client(server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n");
  client.Send(std::string(4 << 20, 'x'));
  std::atomic<bool> stop{false};
  std::thread drip([&] {
    while (!stop && client.Send("x")) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  const Answer answer = client.Receive();
  stop = true;
  drip.join();
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.body, AllOf(HasSubstr("at least 3072"), HasSubstr("limits.idle_seconds")));
  EXPECT_EQ(calls, 0);
}

TEST_F(HostileClient, ASlowBodyThatGoesOnIsTaken) {
  options.config.limits.idle_seconds = 3;
  Start();
  Client client(server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40960\r\n\r\n");
  for (int i = 0; i < 10; ++i) {
    client.Send(std::string(4096, 'x'));
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  EXPECT_EQ(client.Receive().body.size(), 40960u);
}

TEST_F(HostileClient, LeavingIsNoticedWhileAHandlerWorks) {
  Start();
  {
    Client leaves(server->port()), resets(server->port()), half(server->port());
    for (Client* client : {&leaves, &resets, &half})
      client->Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ASSERT_TRUE(Eventually([&] { return working == 3; }));
    EXPECT_EQ(gone, 0);
    resets.Reset();
    half.CloseSending();
    EXPECT_TRUE(Eventually([&] { return gone == 2; }, 5));
    EXPECT_EQ(half.Receive().body, "worked") << "a whole answer still goes to who may be reading";
  }
  EXPECT_TRUE(Eventually([&] { return gone == 3; }, 5));
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  EXPECT_EQ(server->counts().in_work, 0);
}

TEST_F(HostileClient, LeavingDuringABodyLeavesNothing) {
  Start();
  Connect().Get("/hello");
  ASSERT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  const int64_t before = OpenDescriptors();
  for (int i = 0; i < 20; ++i) {
    Client client(server->port());
    client.Send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    client.Send(std::string(i * 1000, 'x'));
    if (i % 2 == 0) client.Reset();
  }
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() <= before; })) << OpenDescriptors() << " " << before;
  EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(options.upload_folder); }));
  EXPECT_EQ(calls, 1);
}

TEST_F(HostileClient, ASlowReaderIsCutWithABoundedBufferWhileOthersGoOn) {
  options.config.limits.unsent_seconds = 1;
  options.config.limits.unsent_bytes = 64 << 10;
  Start();
  Client stalled(server->port(), 4 << 10);
  const int64_t before = ResidentBytes();
  stalled.Send("GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return working == 1; }));
  EXPECT_EQ(Connect().Get("/stream?parts=1000").whole, true);
  EXPECT_TRUE(Eventually([&] { return gone == 1; }, 20));
  EXPECT_LT(flooded_bytes, 4 << 20) << "of which most are in the kernel's buffers";
  EXPECT_LT(GrowthSince(before), 16 << 20);
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  EXPECT_THAT(metrics->Text(),
              HasSubstr(R"(palimpsest_http_cut_total{listener="api",reason="slow reader"} 1)"));
}

TEST_F(HostileClient, AByteNowAndThenIsNoProgress) {
  options.config.limits.unsent_seconds = 2;
  options.config.limits.unsent_bytes = 1 << 20;
  Start();
  Client drip(server->port(), 16 << 10);  // some 100 KB/s, each piece in time
  drip.Send("GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return working == 1; }));
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop && !drip.ReceiveSome().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  });
  EXPECT_TRUE(Eventually([&] { return gone == 1; }, 20));
  stop = true;
  reader.join();
}

TEST_F(HostileClient, PipelinedBytesAreBounded) {
  Start();
  Client client(server->port());
  client.Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return working == 1; }));
  const int64_t before = ResidentBytes();
  std::thread sender([&] {
    const std::string request =
        "GET /hello HTTP/1.1\r\nHost: localhost\r\nA: " + std::string(4000, 'a') + "\r\n\r\n";
    for (int i = 0; i < 8000 && client.Send(request); ++i) {  // 32 MB
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(GrowthSince(before), 8 << 20);
  server->Stop();
  sender.join();
}

TEST_F(HostileClient, TooManyConnectionsAreTurnedAway) {
  options.config.limits.connections = 4;
  Start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<Client>(server->port()));
    ASSERT_EQ(clients.back()->Get("/hello").status, 200);
  }
  const Answer turned = Connect().Receive();
  EXPECT_EQ(turned.status, 503);
  EXPECT_EQ(turned.headers.at("retry-after"), "1");
  EXPECT_THAT(turned.body, HasSubstr("4 connections are open already (limits.connections)"));
  EXPECT_EQ(clients[0]->Get("/hello").status, 200);
  clients.clear();
  ASSERT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
  EXPECT_EQ(Connect().Get("/hello").status, 200);
}

TEST_F(HostileClient, RequestsThatFindNoThreadAreRefusedAtOnce) {
  options.config.limits.running = 1;
  options.config.limits.waiting = 1;
  Start();
  std::vector<std::unique_ptr<Client>> busy;
  for (int i = 0; i < 34; ++i) {
    busy.push_back(std::make_unique<Client>(server->port()));
    busy.back()->Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  ASSERT_TRUE(Eventually([&] { return working == 34; }));
  Client refused(server->port());
  const Answer answer = refused.Get("/hello");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  EXPECT_THAT(answer.body, AllOf(HasSubstr("at most 34"), HasSubstr("limits.running")));
  release = true;
  for (const auto& client : busy) EXPECT_EQ(client->Receive().body, "worked");
  EXPECT_EQ(refused.Get("/hello").status, 200) << "the same connection";
}

TEST_F(HostileClient, AHandlerThatAnswersNothingOrThrowsIsAServerError) {
  Router router;
  router.Add({"GET", "/nothing", Route::Body::kNone, Route::Access::kOpen, [](const Request&, Response&) {}});
  router.Add({"GET", "/throws", Route::Body::kNone, Route::Access::kOpen,
              [](const Request&, Response&) { throw std::runtime_error("of a library"); }});
  router.Add(
      {"GET", "/half", Route::Body::kNone, Route::Access::kOpen, [](const Request&, Response& response) {
         response.BeginStream(200, "text/plain", {{"x-bad", "a\r\nb: c"}});
         response.Write("begun");
       }});
  auto started = HttpServer::Start(options, std::move(router));
  ASSERT_TRUE(started.ok());
  server = *std::move(started);
  Client client(server->port());
  EXPECT_EQ(client.Get("/nothing").status, 500);
  const Answer thrown = client.Get("/throws");
  EXPECT_EQ(thrown.status, 500);
  EXPECT_THAT(thrown.body, Not(HasSubstr("library")));
  const Answer half = client.Get("/half");
  EXPECT_FALSE(half.whole) << "cut, so that nobody takes it for the whole";
  EXPECT_FALSE(half.headers.contains("b"));
}

TEST_F(HostileClient, StopEndsEverything) {
  Start();
  std::vector<std::unique_ptr<Client>> clients;
  for (const char* path : {"/busy", "/flood", "/hello"}) {
    clients.push_back(std::make_unique<Client>(server->port(), 4 << 10));
    clients.back()->Send(fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path));
  }
  clients.push_back(std::make_unique<Client>(server->port()));
  clients.back()->Send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome");
  ASSERT_TRUE(Eventually([&] { return working == 2; }));
  server->Stop();
  EXPECT_EQ(gone, 2);
  EXPECT_EQ(server->counts().connections, 0);
  EXPECT_TRUE(std::filesystem::is_empty(options.upload_folder));
  for (const auto& client : clients) EXPECT_TRUE(client->ClosedWithin(5));
}

}  // namespace
}  // namespace palimpsest::http
