// Writes the induction model, or a document for it: one line for each needle on standard output, as JSON: its
// depth, a question and the answer; then one for a key that is not there, which is answered with " ?" as
// often as tokens are asked for.
//
//   write_induction_model model FILE [CONTEXT]
//   write_induction_model document FILE TOKENS [NEEDLES] [SEED]
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "proto/base/status.h"
#include "tests/testing/induction_text.h"

namespace palimpsest::testing {
namespace {

absl::Status WriteDocument(const char* path, int64_t tokens, int64_t count, uint64_t seed) {
  if (count < 1 || count >= induction::kKeys ||
      tokens < count * induction::kNeedleTokens + induction::kQuietTail) {
    return InvalidArgument(
        "{} needles in {} tokens: 1 to {} are possible, each of {} tokens, and the last {} are free", count,
        tokens, induction::kKeys - 1, induction::kNeedleTokens, induction::kQuietTail);
  }
  const std::vector<induction::Needle> needles = induction::SpreadNeedles(tokens, count, seed);
  const std::string text = induction::TextOf(induction::Document(tokens, needles, seed));
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return Internal("{}: could not be written; check that its folder exists", path);
  for (const induction::Needle& needle : needles) {
    std::printf("{\"depth\": %.4f, \"question\": \"%s\", \"answer\": \"%s\"}\n",
                static_cast<double>(needle.first) / static_cast<double>(tokens),
                induction::TextOf(induction::Question(needle.key, seed)).c_str(),
                induction::TextOf(needle.values).c_str());
  }
  std::printf("{\"depth\": null, \"question\": \"%s\", \"answer\": \"%s\"}\n",
              induction::TextOf(induction::Question(induction::Key(induction::kKeys - 1), seed)).c_str(),
              induction::Word(induction::kUnknown).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace palimpsest::testing

int main(int argc, char** argv) {
  using namespace palimpsest;  // NOLINT: a main
  const std::string_view what = argc > 1 ? argv[1] : "";
  absl::Status written;
  if (what == "model" && (argc == 3 || argc == 4)) {
    testing::InductionModelOptions options;
    if (argc == 4) options.context = std::atoll(argv[3]);
    written = testing::WriteInductionModel(options, argv[2]);
  } else if (what == "document" && argc >= 4 && argc <= 6) {
    const int64_t count = argc > 4 ? std::atoll(argv[4]) : 10;
    const uint64_t seed = argc > 5 ? static_cast<uint64_t>(std::atoll(argv[5])) : 1;
    written = testing::WriteDocument(argv[2], std::atoll(argv[3]), count, seed);
  } else {
    std::fprintf(stderr,
                 "usage: write_induction_model model FILE [CONTEXT]\n"
                 "       write_induction_model document FILE TOKENS [NEEDLES] [SEED]\n");
    return 2;
  }
  if (!written.ok()) std::fprintf(stderr, "%s\n", Message(written).c_str());
  return written.ok() ? 0 : 1;
}
