// How many files and sockets this process may have open.
//
// Threads: one at a time, before others depend on it.
#pragma once

#include <cstdint>

namespace palimpsest {

// Raises the limit (RLIMIT_NOFILE) as far as the system lets anyone, and returns what it is now; a system
// that refuses leaves it as it was. The usual 1,024 are for programs that wait with select(), which fails
// beyond that; ours do not, and the SSD tier keeps a few files open for each batch that it holds.
int64_t RaiseOpenFilesLimit();

}  // namespace palimpsest
