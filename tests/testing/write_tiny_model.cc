// Writes the tiny model that tests run on: write_tiny_model FILE [CONTEXT]
#include <cstdio>
#include <cstdlib>

#include "proto/base/status.h"
#include "tests/testing/tiny_model.h"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: write_tiny_model FILE [CONTEXT]\n");
    return 2;
  }
  palimpsest::testing::TinyModelOptions options;
  if (argc == 3) options.context = std::atoll(argv[2]);
  const absl::Status written = palimpsest::testing::WriteTinyModel(options, argv[1]);
  if (!written.ok()) std::fprintf(stderr, "%s\n", palimpsest::Message(written).c_str());
  return written.ok() ? 0 : 1;
}
