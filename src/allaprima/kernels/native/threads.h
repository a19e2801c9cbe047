// Parallel loops on torch's threads. The library and torch use the same OpenMP runtime and therefore the same thread pool.
#pragma once

#include <cstdint>

namespace allaprima {

using Index = std::int64_t;

// Calls `work(i)` for 0 <= i < count, scheduled dynamically. The result of `work(i)` must depend on i alone, not on the thread.
template <class Work>
void parallel_for(Index count, int threads, const Work& work) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (count > 1 && threads > 1)
    for (Index i = 0; i < count; ++i) work(i);
}

}  // namespace allaprima
