// What an operator can set, as one plain struct: read once by main, passed down as a value, never changed
// later.
//
// Four sources, the later wins: defaults, the YAML file (--config or $PALIMPSEST_CONFIG), the environment
// (PALIMPSEST_SECTION_KEY), flags. One table in config.cc names each field once for all of them.
//
//   device:
//     arena_bytes: 4GiB          # or PALIMPSEST_DEVICE_ARENA_BYTES=4GiB
//
// An unknown key or variable is an error that names the nearest known one and, for the file, the line: a
// typing mistake never leaves a default in force silently. Exempt: PALIMPSEST_CONFIG, PALIMPSEST_TEST_*, and
// empty variables, which count as not set. Nothing in here is secret.
//
// Errors: InvalidArgument "FILE line 3: device.arena_bytes: '4GB' is not ...".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace palimpsest {

struct Config {
  // Folder of documents, blocks, models and keys; one process at a time. Set it to a large, fast disk.
  // Default: $XDG_DATA_HOME/palimpsest, else ~/.local/share/palimpsest. A leading ~/ means $HOME/.
  std::string data_dir;

  // Model to serve: a name in the data folder's models/ or the path of a .gguf file. Default "": the
  // quick-start model.
  std::string model;

  struct Threads {
    // Threads that compute. Lower it to leave cores to other processes. Default 0: all cores this process may
    // use.
    int64_t count = 0;
    // Whether each compute thread stays on one core. Off where another process pins to the same cores.
    // Default true.
    bool pin = true;
    // How long an idle compute thread spins before it sleeps, in microseconds. 0 saves power, more saves a
    // wake-up between operations. Default 100.
    int64_t spin_us = 100;
  };
  Threads threads;

  struct Device {
    // Bytes for resident KV, digests and attention's work space: a hard cap. Raise it for larger budgets or
    // more sessions at once. Default 1 GiB; 0: twice what one prompt of the model's window needs.
    int64_t arena_bytes = int64_t{1} << 30;
    // Instruction set of the CPU backend: auto, avx512, avx2 or portable. Change it to compare or to rule out
    // a path. Default auto: the best this machine has.
    std::string isa = "auto";
    // How products are computed: auto, bf16 or int8. Blocks of one class are not used by another. Default
    // auto: by model and machine.
    std::string numerics = "auto";
  };
  Device device;

  struct Host {
    // Bytes of host memory for sealed blocks, above the SSD tier. Raise it where many documents are asked in
    // turn. Default 4 GiB; 0: no host tier.
    int64_t store_bytes = int64_t{4} << 30;
  };
  Host host;

  struct Prefill {
    // Tokens prefilled in one step. More is faster up to a point and takes work space in proportion; it never
    // changes a result. Default 512.
    int64_t chunk_tokens = 512;
  };
  Prefill prefill;

  // What a request gets that does not say otherwise.
  struct Generate {
    int64_t max_tokens = 256;       // tokens of an answer. Default 256
    double temperature = 0;         // 0: always the likeliest token. Default 0
    int64_t top_k = 0;              // sample from the k likeliest only; 0: from all. Default 0
    double top_p = 1;               // sample from the likeliest that sum to p. Default 1: all
    double min_p = 0;               // leave out tokens under min_p times the likeliest. Default 0: none
    double repetition_penalty = 1;  // divides the logits of tokens already seen. Default 1: none
    int64_t seed = 0;               // of sampling; equal seeds give equal answers. Default 0
  };
  Generate generate;

  // What a request may ask for; beyond it is an error that names the limit.
  struct Limits {
    int64_t document_bytes = int64_t{1} << 30;  // text of one document. Default 1 GiB
    int64_t question_bytes = int64_t{1} << 20;  // text of one question with its history. Default 1 MiB
    int64_t stop_strings = 16;                  // stop strings of one request. Default 16
    int64_t stop_bytes = 256;                   // length of one stop string. Default 256
  };
  Limits limits;

  struct Log {
    std::string level = "info";   // trace, debug, info, warn, error or off. Default info
    std::string format = "text";  // text for people, json for collectors. Default text
  };
  Log log;

  // Where a field that is not at its default was set, by dotted key: "config.yaml line 3",
  // "PALIMPSEST_DEVICE_ARENA_BYTES", "flag".
  std::map<std::string, std::string> sources;
};

struct ConfigInputs {
  std::string file;                                        // of --config; "": $PALIMPSEST_CONFIG, or no file
  std::map<std::string, std::string> environment;          // all of it; other programs' variables are ignored
  std::vector<std::pair<std::string, std::string>> flags;  // dotted key and text; the last of equal keys wins
};

// Reads all sources, in order, and checks the result. NotFound or PermissionDenied if the file cannot be
// read.
absl::StatusOr<Config> LoadConfig(const ConfigInputs& inputs);

// The same with the file's text in hand, called `name` in errors.
absl::StatusOr<Config> ParseConfig(std::string_view yaml, std::string_view name, const ConfigInputs& inputs);

// Ranges and choices of each field, then what fields must hold together. LoadConfig has done it.
absl::Status ValidateConfig(const Config& config);

// All values as YAML, each with its unit or choices and its source in a comment; reads back as the same
// Config.
std::string PrintEffective(const Config& config);

// One field, for help texts and the reference.
struct ConfigField {
  std::string key;            // device.arena_bytes
  std::string environment;    // PALIMPSEST_DEVICE_ARENA_BYTES
  std::string accepts;        // "bytes, 0 or 16MiB to 16TiB", "auto, avx512, avx2 or portable"
  std::string default_value;  // as text; "" for data_dir, whose default is a rule
};
std::vector<ConfigField> ConfigFields();

}  // namespace palimpsest
