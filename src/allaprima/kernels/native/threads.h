// Work shared among the threads that torch uses: both sides link the same OpenMP library and so the same pool.
#pragma once

#include <cstdint>

namespace allaprima {

using Index = std::int64_t;

// Call `work(i)` for every i below `count`, each by whichever thread is free. What `work(i)` does must depend on i alone.
template <class Work>
void share(Index count, int threads, const Work& work) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (count > 1 && threads > 1)
    for (Index i = 0; i < count; ++i) work(i);
}

}  // namespace allaprima
