// Who may ask, and over what: API keys and TLS on a running server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "coordinator/http/api_keys.h"
#include "proto/base/status.h"
#include "tests/coordinator/http/server_fixture.h"
#include "tests/coordinator/http/tls_client.h"

namespace palimpsest::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Access : public ServerTest {
 protected:
  void WriteKeys(const std::string& entries) {
    std::ofstream(keys_file + ".new") << "keys:\n" << entries;
    std::filesystem::rename(keys_file + ".new", keys_file);
  }
  void LoadKeys() {
    auto loaded = ApiKeys::Load(keys_file);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    keys = *std::move(loaded);
    options.keys = keys.get();
  }
  void UseCertificate(const std::string& name) {
    options.config.server.tls_certificate = folder.File("cert.pem");
    options.config.server.tls_key = folder.File("key.pem");
    MakeCertificate(name, options.config.server.tls_certificate, options.config.server.tls_key);
  }

  const std::string keys_file = folder.File("keys.yaml");
  std::unique_ptr<ApiKeys> keys;
};

TEST_F(Access, ARouteBehindAKeyAsksForIt) {
  const NewKey made = MakeKey("team-a");
  WriteKeys(made.entry);
  LoadKeys();
  Start();
  Client client(server->port());
  const Answer none = client.Get("/secret");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.headers.at("www-authenticate"), "Bearer");
  EXPECT_THAT(none.body, HasSubstr("authentication_error"));
  const Answer wrong = client.Get("/secret", "Authorization: Bearer plm-WRONGKEY\r\n");
  EXPECT_EQ(wrong.status, 401);
  EXPECT_THAT(wrong.body, Not(HasSubstr("WRONGKEY")));
  EXPECT_EQ(client.Get("/secret", "Authorization: Bearer " + made.key + "\r\n").body, "tenant team-a");
  EXPECT_EQ(client.Get("/hello").status, 200) << "open routes stay open";
}

TEST_F(Access, APageOfAnotherSiteNeedsAKey) {
  Start();
  Client client(server->port());
  const std::string page = "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
  for (const char* path : {"/hello", "/secret", "/none"}) {
    const Answer refused = client.Get(path, page);
    EXPECT_EQ(refused.status, 403) << path;
    EXPECT_THAT(refused.body, AllOf(HasSubstr("permission_error"), HasSubstr("server.api_keys_file")));
  }
  client.Send("GET /hello HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 403) << "a name that was made to lead here";
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(client.Get("/hello", "Origin: http://localhost\r\n").status, 200);

  const NewKey made = MakeKey("team-a");
  WriteKeys(made.entry);
  LoadKeys();
  Start();
  EXPECT_EQ(Connect().Get("/hello", page).status, 200);
  EXPECT_EQ(Connect().Get("/secret", page + "Authorization: Bearer " + made.key + "\r\n").status, 200);
}

TEST_F(Access, AQuotaIsA429WithATime) {
  const NewKey made = MakeKey("team-a");
  WriteKeys(made.entry + "    requests_per_minute: 1\n");
  LoadKeys();
  Start();
  Client client(server->port());
  const std::string header = "Authorization: Bearer " + made.key + "\r\n";
  EXPECT_EQ(client.Get("/secret", header).status, 200);
  const Answer second = client.Get("/secret", header);
  EXPECT_EQ(second.status, 429);
  EXPECT_GE(std::stoi(second.headers.at("retry-after")), 1);
  EXPECT_THAT(second.body, HasSubstr("rate_limit_error"));
}

TEST_F(Access, ANewKeyWorksWithoutARestart) {
  WriteKeys(MakeKey("old").entry);
  LoadKeys();
  Start();
  const NewKey made = MakeKey("new");
  WriteKeys(made.entry);
  Client client(server->port());
  EXPECT_TRUE(Eventually(
      [&] { return client.Get("/secret", "Authorization: Bearer " + made.key + "\r\n").status == 200; }));
}

TEST_F(Access, WithKeysOtherMachinesMayAsk) {
  WriteKeys(MakeKey("a").entry);
  LoadKeys();
  options.host = "0.0.0.0";
  Start();
  EXPECT_EQ(Connect().Get("/secret").status, 401);
}

TEST_F(Access, HttpsAnswersAndStreams) {
  UseCertificate("first");
  Start();
  TlsClient client(server->port());
  EXPECT_EQ(client.certificate_name(), "first");
  EXPECT_THAT(client.Ask("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", "hello"), HasSubstr("200 OK"));
  EXPECT_THAT(client.Ask("GET /stream?parts=3000 HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n0\r\n\r\n"),
              HasSubstr("part 2999\n"));
  EXPECT_THAT(client.Ask("GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", ""),
              HasSubstr("hello"));
  EXPECT_TRUE(client.ended_properly());
}

TEST_F(Access, LeavingHttpsIsNoticed) {
  UseCertificate("first");
  Start();
  {
    TlsClient client(server->port());
    client.Send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ASSERT_TRUE(Eventually([&] { return working == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return gone == 1; }, 5));
  EXPECT_TRUE(Eventually([&] { return server->counts().connections == 0; }));
}

TEST_F(Access, PlainTextToHttpsIsClosedAndAHangingHandshakeToo) {
  UseCertificate("first");
  options.config.limits.header_seconds = 1;
  Start();
  Client plain(server->port()), silent(server->port());
  plain.Send("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(plain.ClosedWithin(10));
  EXPECT_TRUE(silent.ClosedWithin(10));
  EXPECT_EQ(calls, 0);
}

TEST_F(Access, ANewCertificateIsTakenWithoutARestart) {
  UseCertificate("first");
  Start();
  EXPECT_EQ(TlsClient(server->port()).certificate_name(), "first");
  UseCertificate("second");
  EXPECT_TRUE(Eventually([&] { return TlsClient(server->port()).certificate_name() == "second"; }));
}

TEST_F(Access, TlsFilesThatAreMissingOrWrongAreNamed) {
  UseCertificate("first");
  const std::string certificate = options.config.server.tls_certificate, key = options.config.server.tls_key;
  const auto start = [&](const std::string& cert_file, const std::string& key_file) {
    options.config.server.tls_certificate = cert_file;
    options.config.server.tls_key = key_file;
    const auto started = HttpServer::Start(options, Router());
    EXPECT_EQ(started.status().code(), absl::StatusCode::kInvalidArgument);
    return Message(started.status());
  };
  EXPECT_THAT(start(folder.File("none.pem"), key),
              AllOf(HasSubstr("server.tls_certificate"), HasSubstr("none.pem")));
  EXPECT_THAT(start(certificate, folder.File("none.pem")),
              AllOf(HasSubstr("server.tls_key"), HasSubstr("none.pem")));
  EXPECT_THAT(start(certificate, ""), HasSubstr("server.tls_key is not"));
  EXPECT_THAT(start(key, key), HasSubstr("server.tls_certificate"));
  const std::string other_key = folder.File("other_key.pem");
  MakeCertificate("other", folder.File("other.pem"), other_key);
  EXPECT_THAT(start(certificate, other_key), HasSubstr("server.tls_key"));
}

}  // namespace
}  // namespace palimpsest::http
