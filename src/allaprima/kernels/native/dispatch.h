// The instruction set level in use, which allaprima_set_level sets.
#pragma once

namespace allaprima {

// Returns whether the level in use includes AMX.
bool uses_amx();

}  // namespace allaprima
