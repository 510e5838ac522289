// A compression policy as people write it, NAME or NAME:key=value,key=value, as checked data: coordinator and
// worker read the same text in the same way.
//
// Errors: InvalidArgument: no such name or key, with the nearest one; a number out of its range, with the
//         range; not of this form.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

// Tokens, or a share of the tokens there are, rounded down: `512` or `25%`.
struct Amount {
  int64_t value = 0;
  bool percent = false;
  int64_t Of(int64_t tokens) const { return percent ? tokens * value / 100 : value; }
  bool operator==(const Amount&) const = default;
};

struct PolicySpec {
  enum class Kind {
    kAuto,
    kFull,
    kSnapKv,
    kInfiniPot,
    kStreaming,
    kRandom,
    kH2o,
    kLookM,
    kTova,
    kRoCo,
    kKnorm,
    kKeyDiff,
    kExpected,
    kSirLlm,
    kPyramidKv,
    kAdaKv,
    kChunkKv,
    kCriticalKv,
    kKvZip
  };
  enum class Pool { kMax, kAvg, kNone };
  enum class Reduce { kMean, kMax, kSum };  // over the query heads of a KV head
  enum class Order { kReducePool, kPoolReduce };
  enum class Divisor { kPadded, kValid };    // of an average at the ends: the kernel, or the tokens under it
  enum class Normalize { kNone, kQueries };  // a sum of attention, or over the queries that could see the key
  enum class TextPrior { kSoft, kHard, kNone };
  enum class Last { kStays, kFree };
  // While the answer grows: all of it stays, or a token goes for each that is new.
  enum class Decode { kKeep, kEvict };
  // What becomes of the tokens that go (worker/compression/merging.h).
  enum class Merge { kNone, kAveraged, kPivotal, kWeighted, kThreshold, kNormalized, kValues };
  // Tokens [first, end) of the documents that are an image's.
  struct Image {
    int64_t first, end;
    bool operator==(const Image&) const = default;
  };
  enum class Catalyst { kDefault, kFile, kIds, kQuestion };
  enum class Keys { kRotated, kRest };  // as attention sees them, or before rotation
  enum class Share { kBlend, kGuard };  // how a floor is given: mixed into the counts, or picked first
  enum class Attend {
    kAll,
    kPart
  };  // what a part of the text sees while it is repeated: all of the text, or itself

  // How what stays is written on the device: exactly, or in 2 bits (kernels/coded_tile.h).
  enum class Resident { kBf16, kKivi2 };

  Kind kind = Kind::kFull;  // kAuto: full where all fits the model's window, else what suits the prefill
  // All but infinipot, streaming and h2o: tokens kept for each layer and KV head in all, with those that stay
  // anyway. Of adakv in the mean of a layer's heads, of pyramidkv in the mean of the layers, of kvzip of all.
  Amount budget{1024};
  // snapkv and those that build on it (pyramidkv, adakv, chunkkv, criticalkv): the last tokens, whose
  // attention votes and which stay; odd width of the pool.
  int64_t window = 32, kernel = 7;
  Pool pool = Pool::kMax;
  Reduce reduce = Reduce::kMean;  // infinipot: mean (attention summed over the catalyst) or max (of both)
  Order order = Order::kReducePool;
  Divisor divisor = Divisor::kPadded;
  // snapkv: share of the window's attention that each head is to keep, with fewer tokens where fewer do; the
  // budget is what all heads have together. 0: each has the budget.
  double target = 0;
  // infinipot: tokens of the pot with the catalyst, and after a distillation (0: half the pot).
  Amount pot{4096}, keep{0};
  double alpha = 0.5;         // infinipot: share of the kept that novelty picks
  std::string score = "cap";  // infinipot: what picks the rest: cap, or the name of a policy
  Catalyst catalyst = Catalyst::kDefault;
  std::string catalyst_file;          // kFile: as written, without the @; only the command line may read it
  std::vector<int32_t> catalyst_ids;  // kIds
  // streaming, sirllm, roco: first tokens and last tokens that stay; of h2o and lookm last ones only.
  // expected: first tokens that stay and whose queries do not count.
  int64_t sink = 4;
  // lookm: first tokens that stay without text_prior, as in its code
  static constexpr int64_t kLookMSinks = 4;
  Amount recent{1020};
  uint64_t seed = 0;                        // random
  Amount heavy{10, true};                   // h2o: tokens beside the recent ones
  Normalize normalize = Normalize::kNone;   // h2o
  Last last = Last::kStays;                 // tova: the newest token
  Decode decode = Decode::kKeep;            // h2o, tova, roco
  Amount volatile_tokens{64};               // roco: whose attention varies most, which stay
  TextPrior text_prior = TextPrior::kSoft;  // lookm
  std::vector<Image> images;                // lookm: ascending; none: all is text
  Merge merge = Merge::kNone;
  Keys keys = Keys::kRotated;    // keydiff
  int64_t future = 512;          // expected: positions whose queries are expected
  bool covariance = true;        // expected: queries spread around their mean
  bool values = true;            // expected: times the norm of the value
  double epsilon = 0;            // added to a score before it is multiplied by a norm
  int64_t beta = 20;             // pyramidkv: the last layer keeps this part of the mean
  double floor = 0.2;            // adakv: share of the budget that each head has
  Share share = Share::kBlend;   // adakv
  int64_t chunk = 20;            // chunkkv: tokens; kvzip: of the text that are repeated at once
  Attend attend = Attend::kAll;  // kvzip
  double first = 0.5;            // criticalkv: share of the budget that attention alone picks
  // All but infinipot and streaming: kivi2 keeps at least the last `residual` tokens of a head exact, and
  // fewer than twice as many; so many go to 2 bits at once. A multiple of 64.
  Resident kv = Resident::kBf16;
  int64_t residual = 128;

  // With the defaults of its kind.
  static PolicySpec Of(Kind kind);
  std::string name() const;
  // Keeps fewer tokens than there are, once there are enough.
  bool compresses() const { return kind != Kind::kFull && kind != Kind::kAuto; }
  // Tokens that stay of so many, per layer and KV head, at most: of infinipot those of the pot. Images are
  // counted from token `images_from` on.
  int64_t BudgetOf(int64_t tokens, int64_t images_from = 0) const;
  // The same of the largest head, where heads or layers share; in anchored prefill, where that takes
  // positions, no head has more than twice its share.
  int64_t MostOf(int64_t tokens, int64_t images_from = 0) const;
  // What BudgetOf says, also of a text that is shorter: the answer may fill it up.
  int64_t LimitOf(int64_t tokens) const;
  // h2o, tova, roco: tokens that stay whatever they are worth, beside prefix and question.
  int64_t StaysOf(int64_t tokens) const;
  // infinipot: tokens after a distillation.
  int64_t KeepOf(int64_t tokens) const;
  // Exact tokens that stay behind those in 2 bits; 0: all are exact.
  int64_t residual_tokens() const { return kv == Resident::kBf16 ? 0 : residual; }
  // kvzip: tokens of the part before that lead into the repetition of the next one.
  static constexpr int64_t kRepeatLead = 8;
  static constexpr int64_t kRepeatMin = 64;  // fewest tokens that are repeated at once
  // In a pot, of which so many are for that and for what is read: up to half of them, in whole tiles.
  static int64_t RepeatedInPot(int64_t room) {
    return std::clamp(room / 2 / kRepeatMin * kRepeatMin, kRepeatMin, Of(Kind::kKvZip).chunk);
  }
  // Tokens that are run behind `tokens` of text beside it, and forgotten: in each part of a repetition,
  // behind `lead` tokens that ask for it.
  int64_t RepeatedOf(int64_t tokens, int64_t lead) const {
    return kind == Kind::kKvZip ? lead + kRepeatLead + std::min(chunk, tokens) : 0;
  }
  bool evicts() const { return decode == Decode::kEvict; }
  bool repeats() const { return kind == Kind::kKvZip || (kind == Kind::kInfiniPot && score == "kvzip"); }
  // Tokens run behind what is compressed, whose attention tells what stays.
  bool runs_catalyst() const { return repeats() || (kind == Kind::kInfiniPot && score == "cap"); }
  // infinipot: what picks gives heads or layers different numbers of tokens. (Of kvzip each has the same.)
  bool distils_shares() const {
    return kind == Kind::kInfiniPot && (score == "adakv" || score == "pyramidkv");
  }
  // Heads or layers keep different numbers of tokens.
  bool shares() const {
    return kind == Kind::kPyramidKv || kind == Kind::kAdaKv || kind == Kind::kKvZip || target > 0;
  }
  bool operator==(const PolicySpec&) const = default;
};

// `auto` is accepted too.
absl::StatusOr<PolicySpec> ParsePolicy(std::string_view text);
// Whether a policy of this name can pick for infinipot; if not, why.
absl::Status CheckDistiller(std::string_view name);
// All parameters of the policy, in a fixed order: equal text, equal policy. ParsePolicy reads it back.
std::string PolicyText(const PolicySpec& policy);
// What can be said once the numbers are known: a percentage that leaves fewer tokens than a window, a pot too
// small for catalyst and keep. `tokens`: what is compressed; `catalyst`: tokens of the catalyst; `fixed`: of
// the prefix, which always stay; `question`: of the question, if it is compressed too, at the end. One line
// with the number and the range.
absl::Status CheckPolicyFits(const PolicySpec& policy, int64_t tokens, int64_t catalyst, int64_t fixed,
                             int64_t question = 0);

// The last `question` of `tokens` that a policy sees stay whole, and the `fixed` before the documents, with
// first tokens that the policy keeps in any case: `budget` must hold more than those. Nothing seen (0 or
// fewer): fits.
absl::Status CheckQuestionStays(const PolicySpec& policy, int64_t tokens, int64_t budget, int64_t fixed,
                                int64_t question);

}  // namespace palimpsest
