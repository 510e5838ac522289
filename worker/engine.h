// The engine of one rank: prompts in, tokens out. Requests run together, step by step: each step mixes the
// decode rows of all sessions with chunks of prompts.
//
// Prompt : segments (prefix | documents | question), each tokenized on its own and starting a block of its
//          own. Blocks of shared segments are sealed, named by content, and found again by later requests:
//          they are not prefilled twice.
// Resume : a request may bring the beginning of its answer. It goes on exactly as the request would have
//          that had generated it: same tokens, same text, same probabilities.
// Sharing: of several requests for a block that nobody has computed yet one computes it; the others wait
//          for it.
// Memory : a request is admitted when the device arena holds its worst case (prompt and all it may
//          generate) beside the worst cases of those that run; others wait. So a running request never
//          lacks room. In order of arrival, but what is smaller may pass for a few seconds. A background
//          request is stopped when another needs its room; its sealed blocks stay, and it goes on later
//          with the same bits.
// Errors : Submit: InvalidArgument (too long for the window, both numbers; bad token id; bad sampling),
//          ResourceExhausted (can never fit the arena). A request's own outcome: Cancelled.
// Threads: one at a time; math runs on the backend's pool.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/base/policy_spec.h"
#include "proto/base/recall_spec.h"
#include "proto/types.pb.h"
#include "storage/block_format.h"
#include "storage/block_id.h"
#include "storage/tiered_store.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "worker/compression/view.h"
#include "worker/load_price.h"
#include "worker/model/model_config.h"
#include "worker/model/sampler.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"
#include "worker/recall/attention_share.h"
#include "worker/recall/document_index.h"
#include "worker/recall/recall_counts.h"
#include "worker/scheduler.h"
#include "worker/sequence.h"

namespace palimpsest {

class LateTier;
struct RecallSetup;
struct HeadScores;

// A part of the prompt.
struct Segment {
  // What compression makes of it: prefixes always stay, a question comes last and always stays.
  enum class Role { kContext, kPrefix, kQuestion };
  std::vector<int32_t> tokens;
  bool shared = false;  // prefix, document or conversation: blocks are sealed and found again
  bool known = false;   // was ingested before: what must be prefilled all the same counts as recomputed
  // Of a shared one: a last partial block is the request's own, and the answer goes on in it, so that it is
  // full when the conversation comes again. Nothing shared may follow.
  bool full_blocks = false;
  Role role = Role::kContext;
};

// What a token attends to while the prompt is read (design.md 5).
enum class PrefillMode {
  kExact,     // everything before it
  kAnchored,  // the prefix and its own segment, a span, whose positions begin anew after the prefix
  kPot,       // infinipot: the pot
};

// One token of the answer. Views are valid during the call.
struct AnswerToken {
  int64_t sequence;               // place in the answer, from 0
  int32_t token;                  // its id, the end token too
  std::string_view text;          // what became certain with it
  double log_probability;         // 0 unless asked for
  std::span<const TopToken> top;  // best first; empty unless asked for
};

using CacheDomain = std::array<uint8_t, 32>;

struct Request {
  std::vector<Segment> segments;
  proto::Sampling sampling;  // max_tokens 0: only prefill (ingest)
  PrefillMode prefill = PrefillMode::kExact;
  PolicySpec policy;  // resolved: not kAuto
  bool question_visible =
      false;  // the policy chooses with the question (all before the answer) in its window
  std::vector<int32_t> catalyst;  // of policies that run one
  RecallSpec recall;              // of what the policy drops
  bool trace = false;             // tell in the outcome what was kept
  // Measurements: tokens of the prompt of which the outcome tells how much was seen; with `oracle` recall
  // brings their slices, and others by chance, instead of choosing.
  std::vector<int32_t> watched;
  bool oracle = false;
  // Measurement: a name whose requests alone find what they leave of their questions' blocks and of what a
  // policy kept. The blocks of the context, and what was seen of all its tokens, are for everybody. Empty: as
  // all requests without a name.
  std::string measured_as;
  // Measurement: with recall `all`, what of the attention of each token of the answer this recall would have
  // left to see (none: the policy by itself).
  std::optional<RecallSpec> audit;
  // The answer's first tokens, which the client has: run like the prompt, told to nobody again.
  std::vector<int32_t> generated;
  int64_t top = 0;                          // best tokens to report at the prompt's end
  bool ignore_end = false;                  // generate past end tokens (measurements)
  bool logprobs = false;                    // tell on_token the log-probabilities
  int64_t top_logprobs = 0;                 // and those of so many best tokens
  bool background = false;                  // gives way to those that are not
  std::optional<CacheDomain> cache_domain;  // none: the engine's own
  std::function<void(std::string_view text, int32_t token)> on_text;  // each token with the text it completed
  std::function<void(const AnswerToken& token)> on_token;
  std::function<void(int64_t done_tokens, int64_t total_tokens)> on_prefill;  // after each chunk
  std::function<void(int64_t cached_tokens)> on_found;  // of the prompt, when more of it was found
  const CancelToken* cancel = &CancelToken::Never();
  // Set while its listener cannot take more: no token is decoded for it meanwhile. Null: never.
  const std::atomic<bool>* paused = nullptr;
};

struct Outcome {
  absl::Status status;          // of the request; the rest holds what was reached
  std::string text;             // of the whole answer
  std::string rest;             // its end, which had been held back and no token was told with
  std::vector<int32_t> tokens;  // generated, with those the request brought, and with the end token
  std::string finish_reason;    // stop | length
  std::vector<TopToken> top;
  // With `trace`: indices of prompt and answer kept, (layer, kv_head, ...), ascending: after each
  // distillation of a pot and each token that an answer let go, and after the last compression of any policy.
  // Empty where nothing was dropped.
  using Kept = std::vector<std::vector<std::vector<int32_t>>>;
  std::vector<Kept> cycles;
  Kept kept;
  // Share of the watched tokens that was resident or recalled when the answer began, over layers and KV
  // heads; -1: nothing was recalled.
  double watched_seen = -1;
  struct Audit {
    int64_t tokens = 0;  // of the answer, that were looked at
    std::vector<AttentionShare> layers;
  };
  std::optional<Audit> audit;
  int64_t blocks = 0;  // of the last shared segment: one for at most 64 tokens of a layer
  proto::Usage usage;
  proto::Receipt receipt;
};

struct EngineOptions {
  BackendOptions backend;
  WeightFormat weights = WeightFormat::kBf16;
  int64_t arena_bytes = 0;  // 0: room for two of the model's windows
  int64_t host_bytes = 0;   // 0: no tier in host memory
  BlockFormat host_format = BlockFormat::kBf16;
  struct Ssd {
    std::string folder;  // of the workers' tiers: each takes the first that no other has. Empty: no SSD tier
    int64_t bytes = 0;   // capacity
    std::string key_file;  // wraps the data key. Empty: values are not encrypted
    int readers = 8;       // threads
    BlockFormat format = BlockFormat::kBf16;
  };
  Ssd ssd;
  // What stands before a tier: faults, records. Null: nothing.
  using WrapTier = std::function<std::unique_ptr<Tier>(std::unique_ptr<Tier>)>;
  WrapTier wrap_host = nullptr, wrap_ssd = nullptr;
  MoverOptions mover;
  bool digests =
      false;  // sealing a block makes those that recall ranks by; else they are made when asked for
  int64_t index_bytes =
      0;  // host memory for indices of documents that were asked; 0: each question loads them
  int64_t recall_budgets_kept = 4;  // of the slices that came to a session, in host memory
  int64_t view_bytes = 0;      // host memory for what policies kept of documents; 0: each question reads them
  int64_t chunk_tokens = 512;  // rows of a step at most
  double share = 0.5;          // of a step's prompt rows for one request while others want some
  double step_seconds = 0;     // a step's rows are cut to what takes about so long; 0: they are not
  CacheDomain tenant_key{};    // of requests that name no domain
  const Clock* clock = &RealClock();
};

// Levels, then counts since the start.
struct EngineStats {
  int64_t running = 0;  // requests that hold device memory
  int64_t waiting = 0;
  int64_t steps = 0, preemptions = 0;
  int64_t prefilled_tokens = 0, generated_tokens = 0, cached_tokens = 0;
  // Running means; 0: none yet. Decoding: of one session.
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const std::shared_ptr<const GgufFile>& file,
                                                        std::shared_ptr<const Tokenizer> tokenizer,
                                                        const EngineOptions& options);
  ~Engine();

  using JobId = int64_t;
  absl::StatusOr<JobId> Submit(Request request);
  // One engine step over all admitted requests. False: there is nothing to do now: all have ended, or the
  // rest waits for its listeners.
  bool Step();
  // The outcome of a finished request, once; nullptr while it runs.
  std::unique_ptr<Outcome> Take(JobId id);
  // Submit, then Step until it is done.
  absl::StatusOr<Outcome> Run(Request request);

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  Backend& backend() { return *backend_; }
  TieredStore& store() { return *store_; }
  Mover& mover() { return *mover_; }
  Tier* host_tier() { return mover_->host(); }
  const std::string& numerics_class() const { return numerics_class_; }
  const std::string& model_hash() const { return model_hash_; }  // hex
  const std::string& key_schema() const { return key_schema_; }  // of its blocks, without model and tenant
  int64_t chunk_tokens() const { return options_.chunk_tokens; }
  EngineStats stats() const;

 private:
  struct Job;
  struct Compression;
  explicit Engine(const EngineOptions& options);
  absl::Status Load(const GgufFile& file);
  // engine_tiers.cc
  absl::Status OpenTiers();
  absl::StatusOr<std::unique_ptr<Tier>> OpenSsd();
  void PrefetchBlocks(Job& job);
  std::shared_ptr<const View> FindView(const Hash256& key, TieredStore::Source* source);
  void KeepView(const Hash256& key, const std::shared_ptr<const View>& view);
  Level LevelOf(const BlockId& id) const;
  bool Declines(Job& job) const;
  double ComputeSeconds() const;
  void StoreBelow(Job& job);
  bool FinishStored(Duration wait);
  void CountSpilled(Job& job, const MoverStats& before);
  void TouchBlocks(const Job& job);
  void DescribeTiers(Job& job);
  // engine_recall.cc
  absl::Status PlanRecall(const Request& request, Compression& c) const;
  bool MustMend(Job& job);
  static bool LacksSlices(Job& job);
  void BeginRecall(Job& job);
  static RecallCounts RecalledOf(const Job& job);
  static std::vector<IndexedBlock> ContextBlocks(const Job& job, int64_t first);
  std::shared_ptr<const DocumentIndex> IndexOf(const Job& job, const RecallSpec& recall);
  void BeginWhole(Job& job, const std::vector<std::vector<int32_t>>& tiles);
  void BeginAudit(Job& job, const RecallSpec& spec, RecallSetup* audited);
  static bool Recalls(const Job& job);
  static LayerHook* HookAt(const Job& job, int64_t token);
  static void DescribeRecall(Job& job);
  // engine_submit.cc
  absl::Status CheckTokens(std::span<const int32_t> tokens) const;
  absl::Status CheckRequest(const Request& request) const;
  CacheDomain DomainOf(const Job& job) const;
  BlockKeySchema KeySchemaOf(const Job& job) const;
  void PlanBlocks(Job& job) const;
  absl::Status Replay(Job& job) const;
  // engine_compression_plan.cc
  absl::Status PlanCompression(Job& job) const;
  static absl::Status PlanContext(const Request& request, Compression& c);
  absl::Status CheckMode(const Job& job, const Compression& c) const;
  void NamePotBlocks(const Job& job, Compression& c) const;
  Hash256 ViewKey(const Job& job, const Compression& c, std::string_view what) const;
  std::optional<Hash256> ScoresKey(const Job& job, const Compression& c) const;
  static int64_t PromptPositions(const Job& job);
  absl::Status CheckWindow(const Job& job) const;
  int64_t WorstTiles(const Job& job) const;
  // engine_compression.cc
  void StartCompression(Job& job);
  void SetStop(Job& job);
  void SumFrom(Job& job, int64_t first);
  static int64_t FindableEnd(const Job& job);
  static int64_t RowsWanted(const Job& job);
  bool PassStop(Job& job, bool more_follows);
  void Counted(Job& job, const std::function<void()>& compress);
  void Decide(Job& job);
  void AddProbeRows(Job& job, int64_t budget);
  HeadScores Score(const Job& job, std::span<const std::vector<int32_t>> tokens, int64_t skip,
                   bool window_stays);
  HeadShares SharesOf(const Compression& c, std::span<const std::vector<float>> scores,
                      std::span<const std::vector<float>> attention = {}) const;
  Outcome::Kept ByLayer(std::vector<std::vector<int32_t>> heads) const;
  static void AppendPacked(Sequence& sequence, std::span<const Sequence::Packing> heads, int64_t base,
                           int64_t next_position);
  void TraceView(Job& job, int64_t fixed) const;
  void BeginQuestion(Job& job);
  static void Slide(Job& job);
  // engine_exact.cc
  std::vector<std::vector<int32_t>> PicksOf(Job& job);
  void EndExact(Job& job);
  std::vector<RestBlock> ContextAtRest(Job& job, int64_t first);
  void KeepExactView(Job& job, const Hash256& key, std::span<const std::vector<int32_t>> kept,
                     std::span<const std::vector<Bf16>> merged, std::span<const std::vector<float>> sums);
  void TakeExactView(Job& job);
  // engine_reading.cc
  Hash256 ReadingKey(const Job& job, const Compression& c, bool squares) const;
  void FindReading(const Job& job);
  void ShareReading(Job& job);
  void KeepReading(const Job& job);
  void TakeReading(Job& job);
  // engine_merge.cc
  std::vector<std::vector<Bf16>> MergeDropped(Job& job, std::span<const std::vector<int32_t>> kept);
  // engine_evict.cc
  static absl::Status PlanEviction(const Request& request, Compression& c, int64_t prompt_tokens);
  static int64_t AnswerHeld(const Job& job);
  std::vector<std::vector<float>> SumsOf(const Job& job, std::span<const std::vector<int32_t>> kept) const;
  void GoOnSumming(Job& job, std::span<const std::vector<float>> sums);
  bool SaysSums(const Compression& c, const View& view) const;
  void BeforeAnswerToken(Job& job);
  void BeginEviction(Job& job);
  void Evict(Job& job);
  // engine_repeat.cc
  absl::Status PlanRepetition(const Request& request, Compression& c) const;
  bool RepeatNext(Job& job);
  void FindPart(Job& job);
  void ScorePart(Job& job);
  void AfterProbe(Job& job);
  static bool SaysScores(const Compression& c, const View& view);
  void FindScores(Job& job);
  static HeadScores FoundScores(const Compression& c, std::span<const int32_t> tokens);
  void KeepScores(Compression& c, const HeadScores& scores);
  // engine_anchored.cc
  std::unique_ptr<Sequence> AnchorSequence(Job& job);
  std::vector<RestBlock> SpanAtRest(Job& job);
  void EndSpan(Job& job);
  void KeepOfSpan(Job& job);
  void ShareBudget(Compression& c) const;
  void KeepWhole(Job& job);
  void LeaveSpan(const Job& job);
  void AppendContext(Job& job);
  void SkipTo(Job& job, int64_t token, bool found);
  // engine_pot.cc
  void FindPotView(Job& job);
  std::vector<std::vector<int32_t>> PotTokens(const Job& job) const;
  HeadScores PotScores(const Job& job, std::span<const std::vector<int32_t>> tokens);
  std::vector<std::vector<int32_t>> PotPicks(const Job& job, std::span<const std::vector<int32_t>> tokens,
                                             HeadScores& scores) const;
  std::vector<int64_t> PotCounts(const Compression& c, std::span<const std::vector<float>> scores) const;
  std::vector<RestBlock> StretchAtRest(Job& job);
  void EndStretch(Job& job);
  std::shared_ptr<View> RepackPot(Job& job, std::span<const std::vector<int32_t>> picks,
                                  std::span<const std::vector<float>> scores);
  void WriteStretchBelow(Job& job);
  void EndContext(Job& job);
  static void FirstOfQuestion(Compression& c);
  // engine.cc
  bool GatherCandidates();
  bool ReadAhead(Job& job);
  std::unique_ptr<Sequence> NewSequence(const Job& job) const;
  static void EncodeOldest(Job& job);
  void OpenOwnGroup(Job& job, int64_t rows, bool keep_rest);
  void OpenGroup(Job& job);
  void AddPromptRows(Job& job, int64_t budget);
  void Observe(Job& job, int64_t first, int64_t count, StepRows* rows);
  void AddDecodeRow(Job& job);
  void AfterStep(Job& job, std::span<const float> logits);
  void EndPrompt(Job& job, std::span<const float> logits);
  void TellPrefill(Job& job);
  void AfterPrompt(Job& job);
  bool EndsAnswer(const Job& job, int32_t token) const;
  std::string Append(Job& job, int32_t token) const;
  void Emit(Job& job, std::span<const float> logits);
  // engine_admission.cc
  void AdmitWaiting();
  bool Fits(const Job& job) const;
  bool Admit(Job& job);
  void MakeRoom(const Job& job);
  void GiveWay(Job& job);
  void Restart(Job& job);
  void Release(Job& job);
  void FindCached(Job& job);
  void SealFull(Job& job);
  bool MayFind(Job& job) const;
  static bool SealsLate(const Job& job);
  Job* ComputedBy(Job& job);
  bool MayCompute(Job& job);
  void Unclaim(const Job& job, const BlockId& id);
  // engine_receipt.cc
  void Finish(Job& job, absl::Status status, std::string reason);
  void FillReceipt(Job& job);
  double ResidentTokens(const Job& job) const;
  static int64_t RecomputedTokens(const Job& job);
  void CountStep(int64_t decoding, double seconds);
  void CountPrefill(const Job& job, double seconds);
  double Since(TimePoint start) const { return Seconds(options_.clock->Now() - start); }

  const EngineOptions options_;
  ModelConfig config_;
  std::string numerics_class_, model_hash_, key_schema_;
  BlockKeySchema schema_;  // but for the tenant
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  Weights weights_;
  std::unique_ptr<RopeTable> rope_;
  std::unique_ptr<TileArena> arena_;
  std::unique_ptr<Mover> mover_;
  std::string no_ssd_;                  // why there is no SSD tier although one was asked for
  const LateTier* late_ssd_ = nullptr;  // it could not be opened at the start; the mover has it
  Hash256 id_key_;                      // under which the domains of requests stand; zero without encryption
  std::unique_ptr<TieredStore> store_;
  ViewCache views_;
  IndexCache indices_;
  LoadPrices load_prices_;
  std::unique_ptr<Transformer> transformer_;
  std::deque<std::unique_ptr<Job>> jobs_;  // in order of arrival; finished ones until taken
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<StepCandidate> candidates_;  // of the step in progress
  std::vector<Job*> candidate_jobs_;
  std::vector<StepRows> step_;
  std::vector<Job*> step_jobs_;
  // Shared blocks that are not sealed yet, by who computes them: others wait for him.
  std::unordered_map<BlockId, Job*, BlockIdHash> computing_;
  int64_t reserved_tiles_ = 0;  // worst cases of the admitted
  JobId next_id_ = 1;
  EngineStats stats_;  // but for the levels
};

}  // namespace palimpsest
