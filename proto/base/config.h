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
// typing mistake never leaves a default in force silently. Exempt: PALIMPSEST_CONFIG, PALIMPSEST_SERVER,
// PALIMPSEST_API_KEY (both of commands that talk to a server), PALIMPSEST_TEST_*, and empty variables, which
// count as not set. Nothing in here is secret.
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
    // How keys and values are held there: bf16 exactly; int8 and int4 take 0.53 and 0.28 of the room and lose
    // a little. Default bf16.
    std::string format = "bf16";
    // Bytes of host memory for what policies kept of texts, and for what they saw while they read them, so
    // that the next question, or another policy or budget, finds it. Default 512 MiB; 0: each reads them
    // again.
    int64_t view_bytes = int64_t{512} << 20;
    // Bytes of host memory for indices by which recall finds dropped tokens, of documents that were asked:
    // about a twelfth of their KV. Default 1 GiB; 0: each question loads them again.
    int64_t index_bytes = int64_t{1} << 30;
  };
  Host host;

  // What outlives the process: sealed blocks, what policies kept, the index.
  struct Ssd {
    // Whether there is an SSD tier. Off: each process computes documents anew. Default true.
    bool enabled = true;
    // Its folder. Default "": tier/ in the data folder.
    std::string folder;
    // Bytes that it may hold, of each worker. Default 0: a quarter of the file system, at most 64 GiB.
    int64_t store_bytes = 0;
    // on: blocks are encrypted under a key that keys/tier.key in the data folder wraps; off: whoever reads
    // the disk reads the documents. Default on.
    std::string encryption = "on";
    // How keys and values are written there. bf16: exactly; int8, int4: in about 0.55 and 0.3 of the room,
    // with a loss (docs/storage.md). Default bf16.
    std::string format = "bf16";
    // Threads that read from it. More suits disks with deep queues. Default 8.
    int64_t readers = 8;
  };
  Ssd ssd;

  struct Prefill {
    // Tokens prefilled in one step. More is faster up to a point and takes work space in proportion; it never
    // changes a result. Default 512.
    int64_t chunk_tokens = 512;
    // How long a step of a worker that serves may take, in milliseconds: chunks are cut to it, so that a new
    // request waits no longer. Lower is quicker to answer and slower in all. Default 100; 0: no limit.
    int64_t step_ms = 100;
    // Most of a step's prompt tokens that one request may have while others wait for theirs. Default 0.5.
    double share = 0.5;
    // Tokens of a span of anchored prefill, at most; spans end at natural ends of the text. Longer is slower
    // for each token and sees more at once. Default 2048.
    int64_t span_tokens = 2048;
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
    int64_t body_bytes = int64_t{8} << 20;      // body of an HTTP request but a document. Default 8 MiB
    int64_t header_bytes = int64_t{16} << 10;   // all headers of an HTTP request. Default 16 KiB
    int64_t headers = 100;                      // of an HTTP request. Default 100
    int64_t header_seconds = 5;                 // to send the headers. Default 5
    int64_t idle_seconds = 10;                  // without a byte of a body that is being sent. Default 10
    int64_t keep_alive_seconds = 60;            // between requests of a connection. Default 60
    int64_t json_depth = 32;                    // nesting of a JSON body. Default 32
    int64_t messages = 2048;                    // of a conversation. Default 2048
    int64_t choices = 8;                        // answers to one request (`n`). Default 8
    int64_t logprobs = 20;                      // best tokens told for each token. Default 20
    int64_t connections = 1024;                 // of HTTP clients at once. Default 1024
    int64_t unsent_bytes = int64_t{256} << 10;  // waiting for one slow client. Default 256 KiB
    int64_t unsent_seconds = 30;                // without a byte taken before it is cut. Default 30
    int64_t running = 32;                       // answers at once. Default 32
    int64_t waiting = 128;             // answers that wait for their turn; more are refused. Default 128
    int64_t waiting_tokens = 1 << 20;  // prompt tokens of those that wait. Default 1M
    int64_t waiting_seconds = 120;     // longest wait for a turn or for a worker. Default 120
  };
  Limits limits;

  // The HTTP front of `serve` and `coordinator`.
  struct Server {
    std::string host =
        "127.0.0.1";      // where clients connect; others than loopback need keys. Default 127.0.0.1
    int64_t port = 8080;  // 0: any free one. Default 8080
    std::string admin_host =
        "127.0.0.1";              // metrics, readiness, status: no key, keep it private. Default 127.0.0.1
    int64_t admin_port = 9090;    // 0: any free one. Default 9090
    int64_t workers = 1;          // worker processes of `serve`. Default 1
    std::string api_keys_file;    // who may ask (docs/serve.md); none: everybody who reaches the port
    bool insecure = false;        // listen beyond loopback without keys. Default false
    std::string tls_certificate;  // PEM file, with tls_key: HTTPS. Default: HTTP
    std::string tls_key;          // PEM file
    std::string model_name;       // what clients call the model. Default: its file's name without ".gguf"
    int64_t drain_seconds = 30;   // for what runs to end at a stop. Default 30
  };
  Server server;

  // How coordinator and workers find and trust each other.
  struct Cluster {
    std::string id = "palimpsest";  // workers join only a coordinator of the same name. Default palimpsest
    std::string coordinator = "127.0.0.1:9091";  // where workers join: host:port or unix:PATH
    std::string listen = "127.0.0.1:0";          // where a worker is reached; port 0: any free one
    int64_t lease_seconds = 6;                   // silence after which a peer counts as gone. Default 6
    std::string tls_certificate;  // PEM files: mutual TLS, needed beyond loopback and Unix sockets
    std::string tls_key;
    std::string tls_ca;
  };
  Cluster cluster;

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
