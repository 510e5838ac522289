#include "proto/base/policy_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;
using Kind = PolicySpec::Kind;

PolicySpec Parsed(const std::string& text) {
  absl::StatusOr<PolicySpec> policy = ParsePolicy(text);
  EXPECT_TRUE(policy.ok()) << text << ": " << policy.status();
  return policy.ok() ? *policy : PolicySpec();
}

std::string Refusal(std::string_view text) {
  const absl::Status status = ParsePolicy(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return Message(status);
}

TEST(PolicySpecTest, ANameAloneHasTheDefaultsOfTheManual) {
  const std::pair<const char*, const char*> table[] = {
      {"full", "full"},
      {"auto", "auto"},
      {"snapkv",
       "snapkv:budget=1024,window=32,kernel=7,pool=max,reduce=mean,order=reduce-pool,divisor=padded"},
      {"infinipot", "infinipot:pot=4096,keep=half,alpha=0.5,score=cap,reduce=mean,catalyst=default"},
      {"infinipot:score=snapkv", "infinipot:pot=4096,keep=half,alpha=0.5,score=snapkv"},
      {"streaming", "streaming:sink=4,recent=1020"},
      {"random", "random:budget=1024,seed=0"},
      {"snapkv:merge=none",
       "snapkv:budget=1024,window=32,kernel=7,pool=max,reduce=mean,order=reduce-pool,divisor=padded"},
      {"random:merge=values", "random:budget=1024,seed=0,merge=values"},
      {"h2o", "h2o:heavy=10%,recent=10%,normalize=none,reduce=mean"},
      {"lookm", "lookm:budget=20%,recent=10%,text_prior=soft,merge=pivotal"},
      {"tova", "tova:budget=1024,last=stays"},
      {"roco", "roco:budget=1024,volatile=64,sink=4,recent=10"},
      {"knorm", "knorm:budget=1024"},
      {"keydiff", "keydiff:budget=1024,keys=rotated"},
      {"expected", "expected:budget=1024,sink=4,future=512,covariance=yes,values=yes,epsilon=0"},
      {"sirllm", "sirllm:budget=1024,sink=4,recent=0"},
      {"pyramidkv",
       "pyramidkv:budget=1024,window=32,kernel=7,pool=max,reduce=mean,order=reduce-pool,divisor=padded,"
       "beta=20"},
      {"adakv",
       "adakv:budget=1024,window=32,kernel=7,pool=max,reduce=mean,order=reduce-pool,divisor=padded,"
       "floor=0.2,share=blend"},
      {"chunkkv",
       "chunkkv:budget=1024,window=32,kernel=7,pool=none,reduce=mean,order=reduce-pool,divisor=padded,"
       "chunk=20"},
      {"criticalkv",
       "criticalkv:budget=1024,window=32,kernel=7,pool=max,reduce=mean,order=reduce-pool,divisor=padded,"
       "first=0.5,epsilon=0.0001"},
      {"kvzip", "kvzip:budget=1024,chunk=128,attend=part"},
      {"full:kv=bf16", "full"},
      {"full:kv=kivi2", "full:kv=kivi2,residual=128"},
      {"keydiff:kv=kivi2,budget=9", "keydiff:budget=9,keys=rotated,kv=kivi2,residual=128"},
  };
  for (const auto& [text, canonical] : table) EXPECT_EQ(PolicyText(Parsed(text)), canonical);
  EXPECT_EQ(Parsed("full"), PolicySpec());
}

TEST(PolicySpecTest, WhatIsPrintedIsReadBack) {
  for (const char* text : {
           "full",
           "auto",
           "snapkv:budget=256",
           "snapkv:budget=25%,window=16,kernel=63,pool=avg,reduce=sum,order=pool-reduce,divisor=valid",
           "snapkv:pool=none,reduce=max,kernel=1,window=1,budget=2",
           "snapkv:divisor=padded,budget=1M",
           "infinipot:pot=768,keep=384,catalyst_ids=0/7/2147483647",
           "infinipot:pot=25%,keep=10%,alpha=0.1,reduce=max,catalyst=question",
           "infinipot:catalyst=@notes/a file: b.txt,alpha=1",
           "infinipot:alpha=1e-300,keep=50%",
           "infinipot:alpha=-0",
           "infinipot:score=snapkv",
           "infinipot:score=streaming,pot=8K,keep=1K",
           "infinipot:score=random,alpha=0",
           "streaming:sink=0,recent=50%",
           "snapkv:merge=values",
           "random:merge=averaged",
           "h2o:heavy=512,recent=1%,normalize=queries,reduce=sum,merge=weighted",
           "lookm:budget=2K,recent=1K,text_prior=hard,images=0-576/576-577/600-1176,merge=none",
           "lookm:text_prior=none,merge=normalized",
           "tova:budget=5%,last=free,merge=threshold",
           "roco:budget=30%,volatile=5%,sink=0,recent=1,merge=pivotal",
           "h2o:heavy=512,decode=evict",
           "tova:last=free,decode=evict",
           "roco:volatile=5%,decode=evict",
           "infinipot:score=h2o",
           "infinipot:score=roco,alpha=0",
           "random:seed=18446744073709551615,budget=1%",
           "knorm:budget=10%",
           "keydiff:keys=rest,budget=300",
           "expected:sink=0,future=64,covariance=no,values=no,epsilon=0.02",
           "sirllm:sink=0,recent=100,budget=30%",
           "pyramidkv:beta=7,window=8,kernel=5",
           "adakv:floor=0.35,share=guard,pool=avg",
           "chunkkv:chunk=10,pool=max",
           "criticalkv:first=0.25,epsilon=0,reduce=max",
           "snapkv:target=0.95,budget=50%",
           "kvzip:budget=25%,chunk=2K,attend=all,merge=values",
           "full:kv=kivi2,residual=64",
           "random:merge=values,residual=64K,kv=kivi2",
           "lookm:kv=kivi2",
           "infinipot:score=expected",
           "infinipot:score=criticalkv,alpha=0.25",
           "infinipot:score=adakv",
           "infinipot:score=pyramidkv,alpha=0",
           "infinipot:score=kvzip",
       }) {
    const PolicySpec policy = Parsed(text);
    EXPECT_EQ(Parsed(PolicyText(policy)), policy) << text;
    EXPECT_EQ(PolicyText(Parsed(PolicyText(policy))), PolicyText(policy)) << text;
  }
}

TEST(PolicySpecTest, EqualPoliciesHaveEqualTextHoweverTheyAreWritten) {
  EXPECT_EQ(PolicyText(Parsed("snapkv:window=32,budget=4K")), PolicyText(Parsed("snapkv:budget=4096")));
  EXPECT_EQ(PolicyText(Parsed("infinipot:alpha=0.50,pot=4K")), PolicyText(Parsed("infinipot")));
  EXPECT_NE(PolicyText(Parsed("random:budget=25")), PolicyText(Parsed("random:budget=25%")));
}

TEST(PolicySpecTest, CountsAre1024Based) {
  EXPECT_EQ(Parsed("snapkv:budget=2K").budget, (Amount{2048, false}));
  EXPECT_EQ(Parsed("random:budget=25%").budget, (Amount{25, true}));
  EXPECT_EQ((Amount{25, true}.Of(4095)), 1023);  // rounded down
}

struct Bad {
  const char* text;
  const char* message;  // a part of it
};

TEST(PolicySpecTest, EveryBadTextIsRefusedInOneLineThatNamesWhatIsAllowed) {
  const Bad table[] = {
      {"", "unknown policy ''; there are auto, full, snapkv, infinipot, streaming"},
      {":", "unknown policy ''"},
      {"zzz", "there are auto, full"},
      {"snapvk", "unknown policy 'snapvk'; did you mean snapkv?"},
      {"snap\nkv", "unknown policy 'snap\\x0akv'"},
      {"full:", "policy full: expected key=value, not ''"},
      {"full:x=1", "policy full has no key 'x'; it has kv and residual"},
      {"full:kv=kivi4", "policy full: kv='kivi4' is not bf16 or kivi2; did you mean kivi2?"},
      {"full:kv=kivi2,residual=0", "residual='0' is not a multiple of 64 from 64 to 65536"},
      {"full:kv=kivi2,residual=96", "residual='96' is not a multiple of 64 from 64 to 65536"},
      {"full:kv=kivi2,residual=128K", "residual='128K' is not a multiple of 64"},
      {"snapkv:residual=64", "policy snapkv: residual=64 goes with kv=kivi2; kv=bf16 keeps all of it exact"},
      {"infinipot:kv=kivi2", "policy infinipot has no key 'kv'"},
      {"streaming:kv=kivi2", "policy streaming has no key 'kv'; it has sink and recent"},
      {"auto:budget=4", "policy auto takes no parameters"},
      {"snapkv:", "expected key=value, not ''"},
      {"snapkv:budget", "expected key=value, not 'budget'"},
      {"snapkv:=4", "expected key=value, not '=4'"},
      {"snapkv:budget=", "expected key=value, not 'budget='"},
      {"snapkv:budget=4,", "expected key=value, not ''"},
      {"snapkv:budget=64,,window=2", "expected key=value, not ''"},
      {"snapkv:budget=64,budget=65", "policy snapkv: budget twice"},
      {"snapkv:budgte=4", "policy snapkv has no key 'budgte'; did you mean budget?"},
      {"streaming:zzzzz=4", "policy streaming has no key 'zzzzz'; it has sink and recent"},
      {"snapkv:budget=0",
       "policy snapkv: budget='0' is not 1 to 1073741824 tokens, such as 512 or 4K, or 1% to 100%"},
      {"snapkv:budget=-5", "budget='-5' is not 1 to 1073741824 tokens"},
      {"snapkv:budget=0%", "budget='0%' is not 1 to"},
      {"snapkv:budget=101%", "or 1% to 100%"},
      {"snapkv:budget=%", "budget='%' is not"},
      {"snapkv:budget=2.5K", "budget='2.5K' is not"},
      {"snapkv:budget=0.25", "budget='0.25' is not"},
      {"snapkv:budget=2G", "budget='2G' is not"},
      {"snapkv:budget=99999999999999999999", "is not 1 to 1073741824 tokens"},
      {"snapkv:budget=2000000000", "is not 1 to 1073741824 tokens"},
      {"snapkv:budget=32",
       "budget=32 leaves no room beside window=32, which stays: budget of 33 to 1073741824"},
      {"snapkv:window=1024", "budget=1024 leaves no room beside window=1024"},
      {"snapkv:window=0", "policy snapkv: window='0' is not a whole number from 1 to 1024"},
      {"snapkv:window=1025", "is not a whole number from 1 to 1024"},
      {"snapkv:kernel=4", "policy snapkv: kernel='4' is not an odd number from 1 to 255"},
      {"snapkv:kernel=0", "kernel='0' is not an odd number"},
      {"snapkv:kernel=-3", "kernel='-3' is not an odd number"},
      {"snapkv:kernel=257", "is not an odd number from 1 to 255"},
      {"snapkv:pool=maxx", "pool='maxx' is not max, avg or none; did you mean max?"},
      {"snapkv:reduce=median", "reduce='median' is not mean, max or sum"},
      {"snapkv:order=pool", "order='pool' is not reduce-pool or pool-reduce"},
      {"snapkv:divisor=1", "divisor='1' is not padded or valid"},
      {"infinipot:pot=0", "pot='0' is not 1 to"},
      {"infinipot:keep=0", "keep='0' is not 1 to"},
      {"infinipot:pot=512,keep=512", "policy infinipot: keep=512 is not below pot=512"},
      {"infinipot:keep=8K", "keep=8192 is not below pot=4096"},
      {"infinipot:pot=20%,keep=20%", "keep=20% is not below pot=20%"},
      {"infinipot:alpha=1.5", "policy infinipot: alpha='1.5' is not a number from 0 to 1"},
      {"infinipot:alpha=-0.1", "is not a number from 0 to 1"},
      {"infinipot:alpha=nan", "alpha='nan' is not a number from 0 to 1"},
      {"infinipot:alpha=half", "alpha='half' is not a number"},
      {"infinipot:score=capp", "unknown policy infinipot: score 'capp'; did you mean cap?"},
      {"infinipot:score=zzzzzz", "there are cap, snapkv"},
      {"infinipot:score=infinipot", "score=infinipot picks no tokens by itself; allowed: cap, snapkv"},
      {"infinipot:score=full", "score=full picks no tokens by itself"},
      {"infinipot:score=auto", "score=auto picks no tokens by itself"},
      {"infinipot:reduce=sum", "reduce='sum' is not mean or max"},
      {"infinipot:catalyst=Summarize this", "is not @FILE, question or default"},
      {"infinipot:catalyst=@", "is not @ and a path of 1 to 4096 bytes"},
      {"infinipot:catalyst=@a\tb", "is not @ and a path"},
      {"infinipot:catalyst=@a,catalyst_ids=1", "give catalyst or catalyst_ids, not both"},
      {"infinipot:catalyst_ids=1/2,catalyst=question", "not both"},
      {"infinipot:catalyst_ids=1//2", "is not 1 to 4096 token ids from 0 to 2147483647"},
      {"infinipot:catalyst_ids=1/", "is not 1 to 4096 token ids"},
      {"infinipot:catalyst_ids=1/-2", "is not 1 to 4096 token ids"},
      {"infinipot:catalyst_ids=2147483648", "from 0 to 2147483647"},
      {"infinipot:score=snapkv,catalyst=question",
       "catalyst goes with score=cap; score=snapkv takes no catalyst"},
      {"infinipot:catalyst_ids=1/2,score=random", "catalyst_ids goes with score=cap"},
      {"infinipot:score=random,reduce=max", "reduce goes with score=cap"},
      {"streaming:sink=-1", "sink='-1' is not a whole number from 0 to 1073741824"},
      {"streaming:recent=0", "recent='0' is not 1 to"},
      {"knorm:window=4", "policy knorm has no key 'window'; it has budget"},
      {"knorm:budget=0", "budget='0' is not 1 to 1073741824 tokens"},
      {"keydiff:keys=plain", "keys='plain' is not rotated or rest"},
      {"expected:future=0", "policy expected: future='0' is not a whole number from 1 to 65536"},
      {"expected:covariance=maybe", "covariance='maybe' is not no or yes"},
      {"expected:epsilon=2", "epsilon='2' is not a number from 0 to 1"},
      {"expected:sink=-1", "sink='-1' is not a whole number from 0 to"},
      {"sirllm:recent=-1", "policy sirllm: recent='-1' is not a whole number from 0 to"},
      {"sirllm:recent=10%", "recent='10%' is not a whole number"},
      {"pyramidkv:budget=32", "policy pyramidkv: budget=32 leaves no room beside window=32"},
      {"pyramidkv:beta=0", "beta='0' is not a whole number from 1 to 1000000"},
      {"adakv:budget=8", "policy adakv: budget=8 leaves no room beside window=32"},
      {"adakv:floor=1.1", "policy adakv: floor='1.1' is not a number from 0 to 1"},
      {"adakv:share=half", "share='half' is not blend or guard"},
      {"chunkkv:chunk=0", "chunk='0' is not a whole number from 1 to"},
      {"chunkkv:window=2K", "window='2K' is not a whole number from 1 to 1024"},
      {"criticalkv:first=-0.5", "first='-0.5' is not a number from 0 to 1"},
      {"criticalkv:kernel=2", "policy criticalkv: kernel='2' is not an odd number"},
      {"snapkv:target=0", "policy snapkv: target='0' is not a number between 0 and 1"},
      {"snapkv:target=1", "target='1' is not a number between 0 and 1"},
      {"adakv:target=0.9", "policy adakv has no key 'target'"},
      {"kvzip:chunk=63", "policy kvzip: chunk='63' is not a whole number from 64 to 8192"},
      {"kvzip:attend=none", "attend='none' is not all or part"},
      {"random:seed=-1", "seed='-1' is not a whole number from 0 to 18446744073709551615"},
      {"random:seed=18446744073709551616", "seed='18446744073709551616' is not"},
      {"random:seed=1K", "seed='1K' is not"},
      {"h2o:heavy=0", "heavy='0' is not 1 to"},
      {"h2o:heavy=60%,recent=50%",
       "policy h2o: heavy=60% and recent=50% are 110% together, expected 2% to 100%"},
      {"h2o:normalize=all", "normalize='all' is not none or queries"},
      {"h2o:budget=5",
       "policy h2o has no key 'budget'; it has heavy, recent, normalize, reduce, decode, merge, kv and "
       "residual"},
      {"h2o:decode=evict,kv=kivi2",
       "policy h2o: decode=evict puts the newest token where another was, and kv=kivi2 has others written in "
       "2 bits: give one of them"},
      {"snapkv:merge=value",
       "merge='value' is not none, averaged, pivotal, weighted, threshold, normalized or "
       "values; did you mean values?"},
      {"streaming:merge=values", "policy streaming has no key 'merge'"},
      {"infinipot:merge=values", "policy infinipot has no key 'merge'"},
      {"lookm:budget=10%", "policy lookm: budget=10% leaves no room beside recent=10%, which stays"},
      {"lookm:text_prior=paper", "text_prior='paper' is not soft, hard or none"},
      {"lookm:images=5-5", "images='5-5' is not 1 to 256 ranges FIRST-END of tokens from 0 to 1073741824"},
      {"lookm:images=9-5", "images='9-5' is not"},
      {"lookm:images=-5-9", "images='-5-9' is not"},
      {"lookm:images=5", "images='5' is not"},
      {"lookm:images=-", "images='-' is not"},
      {"lookm:images=5-", "images='5-' is not"},
      {"lookm:images=0-10/9-20", "ascending and apart"},
      {"lookm:images=30-40/0-10", "ascending and apart"},
      {"lookm:images=0-10/", "images='0-10/' is not"},
      {"lookm:images=0-1073741825", "is not 1 to 256 ranges"},
      {"tova:last=maybe", "last='maybe' is not stays or free"},
      {"tova:decode=evicts", "decode='evicts' is not keep or evict; did you mean evict?"},
      {"h2o:decode=evict,merge=values", "decode=evict lets tokens go one by one, and merge=values joins"},
      {"snapkv:decode=evict", "decode"},
      {"roco:sink=-1", "sink='-1' is not a whole number"},
      {"infinipot:score=tovaa", "did you mean tova?"},
  };
  for (const Bad& bad : table) {
    const std::string message = Refusal(bad.text);
    EXPECT_THAT(message, HasSubstr(bad.message)) << bad.text;
    EXPECT_EQ(message.find('\n'), std::string::npos) << bad.text;
  }
}

TEST(PolicySpecTest, ALongCatalystOfIdsIsRefusedWithoutReadingItAll) {
  std::string text = "infinipot:catalyst_ids=1";
  for (int i = 1; i < 4096; ++i) text += "/1";
  EXPECT_EQ(Parsed(text).catalyst_ids.size(), 4096u);
  EXPECT_THAT(Refusal(text + "/1"), HasSubstr("1 to 4096 token ids"));
}

TEST(PolicySpecTest, TheBudgetIsNeverMoreThanThereIs) {
  EXPECT_EQ(Parsed("full").BudgetOf(5000), 5000);
  EXPECT_EQ(Parsed("snapkv").BudgetOf(5000), 1024);
  EXPECT_EQ(Parsed("snapkv").BudgetOf(500), 500);
  EXPECT_EQ(Parsed("snapkv:budget=25%").BudgetOf(5000), 1250);
  EXPECT_EQ(Parsed("random:budget=10%").BudgetOf(8), 0);
  EXPECT_EQ(Parsed("streaming").BudgetOf(5000), 1024);
  EXPECT_EQ(Parsed("streaming:sink=4,recent=100%").BudgetOf(500), 500);
}

TEST(PolicySpecTest, ThePotIsItsSizeAndKeepsHalfOfItUnlessToldOtherwise) {
  EXPECT_EQ(Parsed("infinipot").BudgetOf(100), 4096);
  EXPECT_EQ(Parsed("infinipot").KeepOf(100), 2048);
  EXPECT_EQ(Parsed("infinipot:pot=25%").BudgetOf(2000), 500);
  EXPECT_EQ(Parsed("infinipot:pot=25%").KeepOf(2000), 250);
  EXPECT_EQ(Parsed("infinipot:pot=25%,keep=10%").KeepOf(2000), 200);  // of the text, as the pot
  EXPECT_EQ(Parsed("infinipot:keep=100").KeepOf(2000), 100);
}

std::string Misfit(const std::string& text, int64_t tokens, int64_t catalyst, int64_t fixed) {
  const absl::Status status = CheckPolicyFits(Parsed(text), tokens, catalyst, fixed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_EQ(Message(status).find('\n'), std::string::npos) << text;
  return Message(status);
}
bool Fits(const std::string& text, int64_t tokens, int64_t catalyst, int64_t fixed) {
  return CheckPolicyFits(Parsed(text), tokens, catalyst, fixed).ok();
}

TEST(PolicySpecTest, AQuestionThatIsSeenStaysAndLeavesRoom) {
  const PolicySpec policy = Parsed("snapkv:budget=100");
  EXPECT_TRUE(CheckQuestionStays(policy, 1000, 100, 30, 69).ok());
  EXPECT_TRUE(CheckQuestionStays(policy, 1000, 10, 30, 0).ok())
      << "no question is seen: the prefix is CheckPolicyFits'";
  const absl::Status status = CheckQuestionStays(policy, 1000, 100, 30, 70);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("a budget of 100 tokens"));
  EXPECT_THAT(Message(status), HasSubstr("have 100: give more than 100"));
  // First tokens that stay in any case, where no prefix holds them.
  for (const char* text : {"expected:budget=100", "sirllm:budget=100,recent=10", "roco:budget=100,volatile=9",
                           "streaming:recent=96", "lookm:budget=100,recent=10,text_prior=none"}) {
    EXPECT_TRUE(CheckQuestionStays(Parsed(text), 1000, 100, 4, 95).ok()) << text;
    EXPECT_TRUE(CheckQuestionStays(Parsed(text), 1000, 100, 0, 95).ok()) << text;
    EXPECT_FALSE(CheckQuestionStays(Parsed(text), 1000, 100, 0, 96).ok()) << text;
    EXPECT_TRUE(CheckQuestionStays(Parsed(text), 96, 100, 0, 96).ok()) << text << ": they are the question's";
  }
  EXPECT_TRUE(CheckQuestionStays(Parsed("lookm:budget=100,recent=10"), 1000, 100, 0, 99).ok());
}

TEST(PolicySpecTest, ImagesAreOfTheDocumentsAlsoWhereTheQuestionIsSeen) {
  const auto fits = [](const char* text, int64_t question) {
    return CheckPolicyFits(Parsed(text), 840, 0, 0, question).ok();
  };
  EXPECT_TRUE(fits("lookm:images=100-800", 40));
  EXPECT_TRUE(fits("lookm:images=100-830", 0));
  EXPECT_FALSE(fits("lookm:images=100-830", 40));
  EXPECT_FALSE(fits("lookm:images=0-800", 40)) << "no text among the documents";
}

TEST(PolicySpecTest, TooManyImagesAreRefused) {
  std::string text = "lookm:images=0-1";
  for (int i = 1; i < 256; ++i) text += "/" + std::to_string(2 * i) + "-" + std::to_string(2 * i + 1);
  EXPECT_EQ(Parsed(text).images.size(), 256u);
  EXPECT_THAT(Refusal(text + "/600-601"), HasSubstr("1 to 256 ranges"));
}

TEST(PolicySpecTest, BudgetsOfPoliciesThatWeighEveryQuery) {
  EXPECT_EQ(Parsed("h2o").BudgetOf(1000), 200);
  EXPECT_EQ(Parsed("h2o:heavy=600,recent=50%").BudgetOf(1000), 1000);
  EXPECT_EQ(Parsed("lookm").BudgetOf(1000), 200);
  // Behind a prefix of 100, 500 of 1000 are an image's; 50 of them among the last 100.
  const char* const images = "lookm:images=450-950";
  EXPECT_EQ(Parsed(images).BudgetOf(1000, 0), 200);
  const PolicySpec hard = Parsed("lookm:images=450-950,text_prior=hard");
  EXPECT_EQ(hard.BudgetOf(1000, 0), 550);
  EXPECT_EQ(hard.BudgetOf(1100, 100), 660);  // of 1100 tokens the last 110 stay, 60 of them the image's
  EXPECT_EQ(Parsed("lookm:text_prior=hard").BudgetOf(1000), 200);
  EXPECT_EQ(Parsed("lookm:budget=90%,text_prior=hard,images=0-900").BudgetOf(1000), 900);
}

TEST(PolicyFitsTest, ImagesAreWithinTheTextAndNotAllOfIt) {
  EXPECT_TRUE(Fits("lookm:budget=50%,images=0-576/600-900", 1000, 0, 100));
  EXPECT_EQ(Misfit("lookm:images=0-576/600-901", 1000, 0, 100),
            "policy lookm: the image 600-901 is not in the 900 tokens there are: 0 to 900");
  EXPECT_EQ(Misfit("lookm:images=0-576/576-900", 1000, 0, 100),
            "policy lookm: images are all of the 900 tokens; at least 1 must be text");
}

TEST(PolicyFitsTest, WhatStaysMustFitBudgetsOfEveryQuery) {
  EXPECT_TRUE(Fits("h2o:heavy=21,recent=50", 1000, 0, 20));
  EXPECT_EQ(Misfit("h2o:heavy=20,recent=50", 1000, 0, 20),
            "policy h2o: heavy=20 is too small: recent=50 and the prefix of 20 tokens stay; 21 or more");
  EXPECT_TRUE(Fits("lookm:budget=71,recent=50", 1000, 0, 20));
  EXPECT_THAT(Misfit("lookm:budget=70,recent=50", 1000, 0, 20), HasSubstr("71 or more"));
  EXPECT_TRUE(Fits("tova:budget=21", 1000, 0, 20));
  EXPECT_THAT(Misfit("tova:budget=20", 1000, 0, 20), HasSubstr("21 or more"));
  EXPECT_TRUE(Fits("roco:budget=85", 1000, 0, 20));
  EXPECT_THAT(Misfit("roco:budget=84", 1000, 0, 20), HasSubstr("85 or more"));
  EXPECT_TRUE(Fits("roco:budget=36,volatile=1,sink=5,recent=10", 1000, 0, 20));
  EXPECT_THAT(Misfit("roco:budget=35,volatile=1,sink=5,recent=10", 1000, 0, 20), HasSubstr("36 or more"));
}

// What an answer fills up must leave something that can go, however short the text is.
TEST(PolicyFitsTest, ABudgetThatIsKeptIsNeverAboveThePrompt) {
  EXPECT_TRUE(Fits("h2o:heavy=20,recent=500", 100, 0, 20)) << "all of it stays, and so does the answer";
  EXPECT_TRUE(Fits("h2o:heavy=21,recent=500,decode=evict", 100, 0, 20));
  EXPECT_THAT(Misfit("h2o:heavy=20,recent=500,decode=evict", 100, 0, 20), HasSubstr("21 or more"));
  EXPECT_TRUE(Fits("tova:budget=21,decode=evict", 10, 0, 20));
  EXPECT_THAT(Misfit("tova:budget=20,decode=evict", 10, 0, 20), HasSubstr("21 or more"));
  EXPECT_THAT(Misfit("roco:budget=84,decode=evict", 10, 0, 20), HasSubstr("85 or more"));
  EXPECT_EQ(ParsePolicy("h2o:heavy=300,recent=10%")->LimitOf(200), 320);
  EXPECT_EQ(ParsePolicy("h2o:heavy=300,recent=10%")->BudgetOf(200), 200);
}

TEST(PolicyFitsTest, ABudgetAboveThePromptDropsNothing) {
  for (const char* text : {"full", "auto", "snapkv", "streaming", "random", "snapkv:budget=100%"}) {
    EXPECT_TRUE(Fits(text, 10, 0, 5)) << text;
  }
}

TEST(PolicyFitsTest, ABudgetMustHoldWindowPrefixAndOneMore) {
  EXPECT_TRUE(Fits("snapkv:budget=53", 1000, 0, 20));
  EXPECT_EQ(Misfit("snapkv:budget=52", 1000, 0, 20),
            "policy snapkv: budget=52 is too small: window=32 and the prefix of 20 tokens stay; 53 or more");
  EXPECT_EQ(Misfit("snapkv:budget=25%", 100, 0, 20),
            "policy snapkv: budget=25% of 100 tokens are 25, too few: window=32 and the prefix of 20 tokens "
            "stay; 53% to 100%");
  EXPECT_TRUE(Fits("snapkv:budget=53%", 100, 0, 20));
  EXPECT_TRUE(Fits("random:budget=21", 1000, 0, 20));
  EXPECT_THAT(Misfit("random:budget=20", 1000, 0, 20),
              HasSubstr("the prefix of 20 tokens stays; 21 or more"));
  EXPECT_THAT(Misfit("random:budget=1%", 50, 0, 0), HasSubstr("1% of 50 tokens are 0, too few"));
  EXPECT_TRUE(Fits("streaming:sink=4,recent=17", 1000, 0, 20));
  EXPECT_THAT(Misfit("streaming:sink=4,recent=16", 1000, 0, 20), HasSubstr("recent=16 is too small"));
  EXPECT_THAT(Misfit("streaming:sink=4,recent=1%", 1000, 0, 20), HasSubstr("; 2% to 100%"));
}

TEST(PolicyFitsTest, WhatStaysInAnyCaseMustFit) {
  for (const char* name : {"pyramidkv", "adakv", "chunkkv", "criticalkv"}) {
    EXPECT_TRUE(Fits(fmt::format("{}:budget=53", name), 1000, 0, 20));
    EXPECT_EQ(
        Misfit(fmt::format("{}:budget=52", name), 1000, 0, 20),
        fmt::format("policy {}: budget=52 is too small: window=32 and the prefix of 20 tokens stay; 53 or "
                    "more",
                    name));
  }
  EXPECT_TRUE(Fits("knorm:budget=21", 1000, 0, 20));
  EXPECT_THAT(Misfit("keydiff:budget=20", 1000, 0, 20), HasSubstr("prefix of 20 tokens stays; 21 or more"));
  EXPECT_TRUE(Fits("expected:budget=5", 1000, 0, 0));
  EXPECT_THAT(Misfit("expected:budget=4", 1000, 0, 0),
              HasSubstr("sink=4 and the prefix of 0 tokens stay; 5"));
  EXPECT_TRUE(Fits("sirllm:budget=31,recent=10", 1000, 0, 20));
  EXPECT_THAT(Misfit("sirllm:budget=30,recent=10", 1000, 0, 20),
              HasSubstr("sink=4, recent=10 and the prefix of 20 tokens stay; 31 or more"));
}

TEST(PolicySpecTest, TheLargestHeadHasTwiceItsShareAtMost) {
  EXPECT_EQ(Parsed("snapkv:budget=100").MostOf(5000), 100);
  EXPECT_EQ(Parsed("adakv:budget=100").MostOf(5000), 200);
  EXPECT_EQ(Parsed("pyramidkv:budget=100").MostOf(150), 150);
}

TEST(PolicyFitsTest, TheRangeThatAnErrorNamesIsRight) {
  for (int64_t fixed : {0, 7, 90}) {
    for (int64_t tokens : {150, 999, 8192}) {
      const int64_t least = fixed + 32 + 1;
      const int64_t percent = (least * 100 + tokens - 1) / tokens;
      if (percent > 100) continue;
      EXPECT_TRUE(Fits(fmt::format("snapkv:budget={}%", percent), tokens, 0, fixed));
      if (percent == 1) continue;
      EXPECT_THAT(Misfit(fmt::format("snapkv:budget={}%", percent - 1), tokens, 0, fixed),
                  HasSubstr(fmt::format("; {}% to 100%", percent)));
    }
  }
}

TEST(PolicyFitsTest, APotMustHoldCatalystKeepAndAStretch) {
  EXPECT_TRUE(Fits("infinipot:pot=768,keep=384", 1866, 20, 0));
  EXPECT_TRUE(Fits("infinipot:pot=120,keep=84", 1000, 20, 0));
  EXPECT_EQ(Misfit("infinipot:pot=119,keep=84", 1000, 20, 0),
            "policy infinipot: a pot of 119 tokens is too small for keep of 84, a catalyst of 20 and 16 new "
            "tokens each time: pot of 120 or more, or keep of 1 to 83");
  EXPECT_EQ(Misfit("infinipot:pot=64", 1000, 64, 0),
            "policy infinipot: a catalyst of 64 tokens does not fit a pot of 64: at most 16, or pot of 81 or "
            "more");
  EXPECT_THAT(Misfit("infinipot:pot=20", 1000, 20, 5),
              HasSubstr("does not fit a pot of 20: pot of 42 or more"));
  EXPECT_THAT(Misfit("infinipot:pot=768,keep=50", 1000, 20, 50),
              HasSubstr("keep of 51 or more, pot of 87 or more"));
  EXPECT_TRUE(Fits("infinipot:pot=768,keep=51", 1000, 20, 50));
  // Percentages that pass alone, of a short text.
  EXPECT_THAT(Misfit("infinipot:pot=25%", 100, 20, 0), HasSubstr("a pot of 25 tokens is too small"));
  EXPECT_THAT(Misfit("infinipot:pot=50,keep=90%", 100, 0, 0), HasSubstr("keep of 90"));
}

}  // namespace
}  // namespace palimpsest
