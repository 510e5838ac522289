// A coordinator over fake workers, and a sink that checks what it is told. Tokens are bytes.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"
#include "tests/coordinator/byte_tokenizer.h"
#include "tests/coordinator/fake_worker_link.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest::testing {

inline constexpr int64_t kTestWindow = 4096;

ServedModel ByteModel(int64_t window = kTestWindow);

// Records an answer; every breach of the sink's contract is a line in `wrong`.
class RecordingSink final : public AnswerSink {
 public:
  bool OnStart(int64_t prompt_tokens, const std::vector<std::string>& documents) override;
  bool OnPrefill(int64_t done_tokens, int64_t total_tokens) override;
  bool OnToken(int64_t choice, const proto::TokenEvent& token) override;
  bool OnDone(int64_t choice, const proto::DoneEvent& done) override;

  int64_t stop_after_tokens = -1;  // false from then on
  bool stop_at_start = false;
  std::function<void()> on_token;

  int64_t starts = 0, prompt_tokens = 0;
  std::vector<std::string> documents;
  std::map<int64_t, std::string> texts;  // by choice
  std::map<int64_t, int64_t> tokens;
  std::map<int64_t, proto::DoneEvent> done;
  std::vector<std::string> wrong;

 private:
  class Serialized;
  std::atomic<int> inside_{0};
  int64_t prefilled_ = 0;
};

AnswerRequest Ask(const std::string& question, int64_t max_tokens = 8, uint64_t seed = 1);

// What the fake workers answer to this request, choice and all.
std::string FakeAnswer(const proto::GenerateRequest& request);

class Serving {
 public:
  explicit Serving(
      FakeWorkerLink::Scripts scripts = [](const auto&) { return FakeWorkerLink::Script(); },
      Config config = TestConfig(), int64_t arena_bytes = 1 << 30);
  static Config TestConfig();

  FakeCluster cluster;
  TemporaryFolder folder;
  std::unique_ptr<Coordinator> coordinator;
};

}  // namespace palimpsest::testing
