// Which of the kernels are used.
#pragma once

namespace allaprima {

bool uses_amx();

}  // namespace allaprima
