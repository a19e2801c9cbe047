// Scratch memory of a thread, which its tasks reuse.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace allaprima {

// Returns uninitialised memory for `count` values, aligned to 64 bytes. It is valid until the thread's next call with the same Tag.
// Each buffer of a kernel has its own Tag type, so that no two buffers share memory.
template <class Tag, class Number>
Number* scratch(std::int64_t count) {
    struct Free {
        void operator()(Number* numbers) const { ::operator delete[](numbers, std::align_val_t(64)); }
    };
    thread_local std::unique_ptr<Number[], Free> numbers;
    thread_local std::int64_t capacity = 0;
    if (count > capacity) {
        // The old memory is freed before the new memory is allocated, so that both never exist at the same time.
        capacity = 0;
        numbers.reset();
        numbers.reset(static_cast<Number*>(::operator new[](std::size_t(count) * sizeof(Number), std::align_val_t(64))));
        capacity = count;
    }
    return numbers.get();
}

}  // namespace allaprima
