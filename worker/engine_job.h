// One request inside the engine, from Submit to Take. Seen by engine*.cc alone.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "worker/answer_text.h"
#include "worker/engine.h"
#include "worker/engine_compression.h"

namespace palimpsest {

struct Engine::Job {
  // A block of the prompt, planned before anything runs.
  struct Block {
    int64_t first, rows;  // tokens of the prompt
    int64_t position;     // of the first, for attention
    bool shared;
    BlockId id;                                                              // of shared blocks
    enum class Origin { kNone, kCached, kComputed } origin = Origin::kNone;  // of its KV, the first time
  };

  Job(JobId job_id, Request r, std::shared_ptr<const Tokenizer> tokenizer)
      : id(job_id),
        request(std::move(r)),
        gives_way(request.background),
        text(std::move(tokenizer), {request.sampling.stop().begin(), request.sampling.stop().end()}) {}

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  // Of the prompt and the answer after it.
  int32_t TokenAt(int64_t i) const {
    if (i < length()) return tokens[static_cast<size_t>(i)];
    return outcome.tokens[static_cast<size_t>(i - prompt_tokens)];
  }
  // Somebody looks at the logits of the last token: it is run, whatever is cached.
  bool wants_logits() const { return max_tokens > 0 || request.top > 0; }
  // All that is prefilled is in whole blocks of the prompt, and another block follows.
  bool at_border() const { return next_block < blocks.size() && blocks[next_block].first == prefilled; }
  bool at_shared_border() const {
    if (!at_border() || !blocks[next_block].shared) return false;
    return blocks[next_block].first + blocks[next_block].rows < length() || !wants_logits();
  }
  bool probing() const { return compression != nullptr && compression->probing(); }
  bool decoding_paused() const {
    return request.paused != nullptr && request.paused->load(std::memory_order_relaxed);
  }

  const JobId id;
  Request request;
  bool paused = false;  // decoding_paused(), asked once a step: others change it meanwhile
  bool gives_way;       // to requests that need its room
  AnswerText text;
  // To be prefilled: all segments, one after the other, and then what is known of the answer.
  std::vector<int32_t> tokens;
  int64_t prompt_tokens = 0;                 // of them
  std::vector<Block> blocks;                 // of the prompt
  size_t next_block = 0;                     // to be opened
  size_t next_seal = 0;                      // to be sealed
  int64_t worst_tiles = 0;                   // most that it may hold
  int64_t held_tiles = 0;                    // of them, that are reserved for it now
  int64_t groups_max = 0;                    // of its sequences' lists
  std::unique_ptr<Compression> compression;  // null: everything before a token is there when it is run
  int64_t max_tokens = 0;                    // the request's, bounded by the window
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<Sampler> sampler;
  std::vector<float> held_logits;  // of the last token, while something looks back at the prompt
  int64_t prefilled = 0;           // of `tokens`: their KV is there
  int64_t computed = 0;            // of them, by running them
  int64_t cached = 0;              // of the prompt
  int64_t told = 0;                // of the prompt, to on_prefill
  int64_t emitted = 0;             // tokens of the answer that were generated here
  Outcome outcome;
  // Storing: all is said, but its blocks are still on their way to SSD.
  enum class State { kWaiting, kPrompt, kDecode, kStoring, kDone } state = State::kWaiting;
  TimePoint submitted, waiting_since, admitted, prompt_done, decode_start, ended;
  bool was_admitted = false;
  double waited_seconds = 0;  // before its last admission
  int64_t gave_way = 0;       // times
  TimePoint last_rows;        // when it had some, or was admitted
  Job* waits_for = nullptr;   // in this step: computes the block that this one needs next
  bool urged = false;         // in this step: somebody waits for a block of this one
  double load_seconds = 0;
  double recall_seconds = 0;  // loading indices
  int64_t peak_tiles = 0;     // most the arena held in the steps of this request before the last
  std::array<int64_t, kLevels> spilled_bytes{};  // by sealing this request's blocks
  size_t prefetched = 0;                         // of its blocks, that were looked for ahead
  bool mended = false;             // it began anew because something that recall wanted was nowhere
  bool declines = false;           // loading costs more than computing: what is not on the device is computed
  int64_t declined = 0;            // tokens of blocks that a tier held and were computed
  std::array<int64_t, 3> found{};  // tokens by TieredStore::Source
  MoverStats tiers_before;         // when it was admitted
  TimePoint stored_by;             // of kStoring: longer is not waited
  int64_t lost_blocks = 0;         // groups that were dropped without a copy below
  double compression_seconds = 0;  // of its prefill, but for the rows that only look
};

}  // namespace palimpsest
