#include "tests/coordinator/http/server_fixture.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include "proto/base/status.h"
#include "tests/testing/sanitized.h"

namespace palimpsest::http {

bool Eventually(const std::function<bool()>& holds, double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<int>(seconds * 1e3));
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

int64_t OpenDescriptors() {
  int64_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

int64_t ResidentBytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * 4096;
}

int64_t GrowthSince(int64_t resident_bytes) { return kSanitized ? 0 : ResidentBytes() - resident_bytes; }

ServerTest::ServerTest() {
  options.name = "api";
  options.host = "127.0.0.1";
  options.upload_folder = folder.File("uploads");
  options.metrics = metrics.get();
}

ServerTest::~ServerTest() { release = true; }

void ServerTest::Start() {
  auto started = HttpServer::Start(options, MakeRouter());
  ASSERT_TRUE(started.ok()) << started.status();
  server = *std::move(started);
}

Router ServerTest::MakeRouter() {
  Router router;
  const auto add = [&](const char* method, const char* pattern, Route::Body body, Route::Access access,
                       Handler handler) {
    router.Add({method, pattern, body, access, [this, handler](const Request& request, Response& response) {
                  ++calls;
                  handler(request, response);
                }});
  };
  const auto none = Route::Body::kNone;
  const auto open = Route::Access::kOpen;
  add("GET", "/hello", none, open,
      [](const Request&, Response& response) { response.Send(200, "text/plain", "hello"); });
  add("GET", "/items/{id}", none, open, [](const Request& request, Response& response) {
    response.Send(200, "text/plain", request.parameters.at("id"));
  });
  add("POST", "/echo", Route::Body::kMemory, open,
      [](const Request& request, Response& response) { response.Send(200, "text/plain", request.body); });
  add("POST", "/upload", Route::Body::kFile, open, [](const Request& request, Response& response) {
    std::ifstream file(request.body_file, std::ios::binary);
    std::string begin(8, '\0');
    file.read(begin.data(), 8);
    response.Send(200, "text/plain",
                  fmt::format("{} {}", std::filesystem::file_size(request.body_file),
                              begin.substr(0, static_cast<size_t>(file.gcount()))));
  });
  add("GET", "/stream", none, open, [](const Request& request, Response& response) {
    response.BeginStream(200, "text/event-stream");
    const int parts = std::stoi(request.query.at("parts"));
    for (int i = 0; i < parts; ++i) {
      if (!response.Write(fmt::format("part {}\n", i))) return;
    }
    response.End();
  });
  add("GET", "/flood", none, open, [this](const Request&, Response& response) {
    response.BeginStream(200, "text/plain");
    ++working;
    while (response.Write(std::string(16 << 10, 'x'))) flooded_bytes += 16 << 10;
    ++gone;
  });
  add("GET", "/busy", none, open, [this](const Request&, Response& response) {
    ++working;
    while (!response.gone().IsSet() && !release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (response.gone().IsSet()) ++gone;
    response.Send(200, "text/plain", "worked");
  });
  add("GET", "/secret", none, Route::Access::kKey, [](const Request& request, Response& response) {
    response.Send(200, "text/plain", fmt::format("tenant {}", request.tenant));
  });
  return router;
}

}  // namespace palimpsest::http
