// Writes the golden files of the current version into the folder given: write_golden_tiles
// tests/storage/golden Files of a version that was released are never written anew.
#include <cstdio>
#include <fstream>

#include "proto/base/status.h"
#include "tests/storage/golden_tiles.h"

int main(int argc, char** argv) {
  using namespace palimpsest;
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_golden_tiles FOLDER\n");
    return 2;
  }
  for (const GoldenFile& file : GoldenFiles()) {
    std::ofstream out(std::string(argv[1]) + "/" + file.name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.bytes.data()),
              static_cast<std::streamsize>(file.bytes.size()));
    PALIMPSEST_CHECK(out.flush().good(), "{}", file.name);
  }
  return 0;
}
