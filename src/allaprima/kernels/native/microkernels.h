// Chooses the microkernel for the level in use.
#pragma once

#include "dispatch.h"
#include "tile_amx.h"
#include "tile_avx512.h"

namespace allaprima {

template <class Type>
struct TypeTag {
    using Microkernel = Type;
};

// Calls `work` with a TypeTag of the microkernel to use: AMX if it is enabled and `row_bytes` is a multiple of its step (64 bytes),
// otherwise AVX-512.
template <class Work>
void dispatch_isa(Index row_bytes, const Work& work) {
#if ALLAPRIMA_HAS_AMX
    if (uses_amx() && row_bytes % (Amx::STEP * Index(sizeof(Group4))) == 0) return work(TypeTag<Amx>{});
#else
    static_cast<void>(row_bytes);
#endif
    work(TypeTag<Avx512>{});
}

}  // namespace allaprima
