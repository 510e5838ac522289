// Memory that is asked for without `new` and cannot be had: what `new` would do then, which the command has
// said (std::set_new_handler ends it with one line); without that the process aborts with how much it was.
#pragma once

#include <cstdint>

namespace palimpsest {

[[noreturn]] void OutOfHostMemory(int64_t bytes);

}  // namespace palimpsest
