// Which core multiplies.
#pragma once

#include "dispatch.h"
#include "tile_amx.h"
#include "tile_avx512.h"

namespace allaprima {

template <class Type>
struct Of {
    using Core = Type;
};

// Call `work` with the core of this CPU: AMX where it is used, and each row is whole steps of it.
template <class Work>
void with_core(Index row_bytes, const Work& work) {
#if ALLAPRIMA_HAS_AMX
    if (uses_amx() && row_bytes % (Amx::STEP * Index(sizeof(Word))) == 0) return work(Of<Amx>{});
#else
    static_cast<void>(row_bytes);
#endif
    work(Of<Avx512>{});
}

}  // namespace allaprima
