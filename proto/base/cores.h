// Which cores threads run on. A thread begins on the cores of the thread that starts it: without a word of
// its own, whatever an engine's pinned thread starts would share that one core.
#pragma once

#include <vector>

namespace palimpsest {

// Those that this process may use, as they were when it first asked: before any thread was bound to one.
const std::vector<int>& ProcessCores();

// Of the calling thread. Hints: failing costs speed only.
void RunOnCore(int core);
void RunOnAllCores();

}  // namespace palimpsest
