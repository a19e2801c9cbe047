// The instruction set level in use.
#pragma once

namespace allaprima {

bool uses_amx();

}  // namespace allaprima
