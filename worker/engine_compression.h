// What compression keeps of one request inside the engine. Seen by engine*.cc alone.
//
// A prompt is read up to a stop, where something is decided: the end of the context (exact), of a span
// (anchored), of a stretch or of the context (pot). Tokens are counted as they stand in the prompt and,
// behind it, in the answer.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "worker/compression/eviction.h"
#include "worker/compression/policy.h"
#include "worker/compression/repetition.h"
#include "worker/compression/view.h"
#include "worker/engine.h"
#include "worker/model/attention_sums.h"
#include "worker/model/query_capture.h"
#include "worker/model/query_moments.h"
#include "worker/recall/attention_audit.h"
#include "worker/recall/recall.h"
#include "worker/recall/whole_document.h"

namespace palimpsest {

// first, first + 1, ... end - 1
inline std::vector<int32_t> Range(int64_t first, int64_t end) {
  std::vector<int32_t> range(static_cast<size_t>(end - first));
  std::iota(range.begin(), range.end(), static_cast<int32_t>(first));
  return range;
}

// Picks that count from behind a prefix become places in the whole, the prefix before them.
inline void PutBehindPrefix(int64_t prefix, std::vector<int32_t>* picks) {
  for (int32_t& pick : *picks) pick += static_cast<int32_t>(prefix);
  const std::vector<int32_t> first = Range(0, prefix);
  picks->insert(picks->begin(), first.begin(), first.end());
}

struct Engine::Compression {
  struct Span {
    int64_t first, end;
  };
  struct RepeatedPart {
    int64_t tokens = 0;  // from repetition.done() on
    // Places in each head's list: of the prefix or the first tokens, and of the part.
    std::vector<size_t> seen, tiles;
  };

  // Decided when the request comes.
  PrefillMode mode = PrefillMode::kExact;
  PolicySpec spec;
  std::unique_ptr<CompressionPolicy> policy;  // null: nothing is dropped
  PolicyNeeds needs;
  bool wants_losses = false;
  int64_t fixed = 0;           // tokens of the prefix, which stay; in anchored prefill the anchor
  int64_t context_end = 0;     // first token after what the policy chooses from
  int64_t budget = 0;          // tokens of a layer and KV head after a compression, the fixed ones with them
  int64_t most = 0;            // of one head beside the fixed ones, where heads share
  bool has_question = false;   // behind the context
  bool goes_on = false;        // none, but somebody looks at the last token: the answer is of the context
  int64_t question_first = 0;  // of a question within it; context_end if there is none
  std::vector<Span> spans;     // anchored
  std::vector<int32_t> probe;  // tokens that look at a span or a stretch and are forgotten
  std::vector<int32_t> lead;   // that a part of the text is repeated behind
  int64_t repeat_tokens = 0;   // of the text that are repeated at once; 0: none are
  int64_t held_max = 0;        // evicts: tokens of a head while the answer grows; 0: nothing goes then
  int64_t recall_tokens = 0;   // room for what comes back, for a layer and KV head; 0: no recall
  bool asks_whole = false;     // the question sees all that precedes it, through that room
  std::optional<Hash256> view_key;    // of what is left of the context; none: it depends on the question
  std::optional<Hash256> scores_key;  // of what its tokens are worth to a repetition, whatever the budget
  std::unique_ptr<BlockChain> chain;  // pot: names its blocks

  // Progress; StartCompression begins anew.
  int64_t stop = 0;           // the token before which something is decided next
  bool context_done = false;  // what follows is the question and the answer
  size_t span = 0;            // that is being read
  bool span_decided = false;  // its blocks may be sealed: nobody reads them at rest any more
  int64_t probe_done = -1;    // tokens of the probe that were run; -1: it does not run
  QueryCapture queries;
  Repetition repetition;
  std::unique_ptr<View> scoring;       // no tokens, and the scores of those behind the prefix so far
  std::shared_ptr<const View> scored;  // of all of them
  RepeatedPart part;                   // that is being repeated
  std::shared_ptr<const View> read;    // exact: what another request saw of all of the context
  AttentionSums sums;
  QueryMoments moments;
  std::unique_ptr<View> kept;        // anchored: of the spans so far
  std::shared_ptr<const View> view;  // of the context; of a pot its residents, all but those of the stretch
  TieredStore::Source view_source = TieredStore::Source::kHost;          // of one that was found
  std::vector<TieredStore::Pin> whole;                                   // anchored, full: the spans' blocks
  std::vector<std::pair<RestBlock, std::shared_ptr<const void>>> found;  // anchored: of this span, at rest
  std::vector<float> losses;                                             // by token
  int64_t run = 0;                                                       // tokens whose KV is or was there
  int64_t stretch_first = 0;  // pot: the first token behind the residents
  int64_t cycles = 0;         // pot
  BlockId parent;             // pot: of the stretch's first block
  bool slides = false;        // the window: from the context's end on
  int64_t window = 0;         // tokens behind the first front_tiles of each head; window_max while decoding
  int64_t window_max = 0;
  size_t front_tiles = 0;
  // Exact, with recall or eviction: tokens of each head that stayed.
  std::vector<std::vector<int32_t>> stayed;
  std::unique_ptr<Eviction> eviction;       // once the answer grows
  std::unique_ptr<Recall> recall;           // once the context is done
  std::unique_ptr<WholeDocument> document;  // beside it, for the question
  std::unique_ptr<AttentionAudit> audit;    // beside it

  bool pot() const { return mode == PrefillMode::kPot; }
  bool anchored() const { return mode == PrefillMode::kAnchored; }
  // Exact tokens that stay behind those in 2 bits; 0: all are exact.
  int64_t residual() const { return spec.residual_tokens(); }
  bool merges() const { return spec.merge != PolicySpec::Merge::kNone && policy != nullptr; }
  // What is picked is taken at rest: then its blocks stay as they are until it is decided.
  bool takes_rest() const { return policy != nullptr && (anchored() || (merges() && !pot())); }
  // Of the context as one text something of every row is wanted.
  bool sees_all() const {
    return mode == PrefillMode::kExact && (needs.sums || needs.losses || needs.future > 0);
  }
  bool probing() const { return probe_done >= 0; }
  // Before each token of the answer something is done, so they are run one by one.
  bool steps() const {
    return slides || recall != nullptr || residual() > 0 || (held_max > 0 && context_done);
  }
  // Numbers that a view keeps for each token of an answer that evicts, by query heads of a group.
  int64_t sum_rows(int64_t group) const { return needs.squares ? 2 * group : group; }
  // First token of those that something is decided about next.
  int64_t first() const {
    if (pot()) return stretch_first;
    return anchored() && span < spans.size() ? spans[span].first : fixed;
  }
  // The last tokens that were read are the observers, not a probe.
  bool looks_back() const { return needs.window > 0 && probe.empty(); }
  // Nothing is decided any more.
  bool done_reading() const { return context_done && !pot(); }
  int64_t probe_size() const { return static_cast<int64_t>(probe.size()); }
  int64_t probe_max() const {
    if (repeat_tokens == 0) return probe_size();
    return static_cast<int64_t>(lead.size()) + PolicySpec::kRepeatLead + repeat_tokens;
  }
  int64_t residents() const { return view == nullptr ? 0 : view->tokens_max(); }
  // Pot: the token before which the stretch must end.
  int64_t stretch_end() const { return stretch_first + spec.pot.value - probe_max() - residents(); }
  // Pot: the context ends here, and what is in it need not be distilled.
  bool ends_context() const {
    return pot() && !context_done && run == context_end && (run < stretch_end() || goes_on);
  }
  // First token of those that are repeated next.
  int64_t repeat_first() const { return pot() ? std::max(fixed, stretch_first) : first(); }
};

}  // namespace palimpsest
