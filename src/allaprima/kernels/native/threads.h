// Parallel loops on torch's threads: the library and torch use the same OpenMP runtime, and so the same thread pool.
#pragma once

#include <cstdint>

namespace allaprima {

using Index = std::int64_t;

// Calls `work(i)` for every i below `count`, scheduled dynamically. `work(i)` must depend on i alone, not on the thread.
template <class Work>
void parallel_for(Index count, int threads, const Work& work) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (count > 1 && threads > 1)
    for (Index i = 0; i < count; ++i) work(i);
}

}  // namespace allaprima
