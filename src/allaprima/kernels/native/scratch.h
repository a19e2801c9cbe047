// Scratch memory of one thread, kept for reuse by its next task.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace allaprima {

// Returns uninitialised memory for `count` values, valid until the thread's next call with the same tag. Each purpose has its own
// tag type, so that two purposes never share memory.
template <class Tag, class Number>
Number* scratch(std::int64_t count) {
    struct Free {
        void operator()(Number* numbers) const { ::operator delete[](numbers, std::align_val_t(64)); }
    };
    thread_local std::unique_ptr<Number[], Free> numbers;
    thread_local std::int64_t room = 0;
    if (count > room) {
        room = 0;
        numbers.reset();
        numbers.reset(static_cast<Number*>(::operator new[](std::size_t(count) * sizeof(Number), std::align_val_t(64))));
        room = count;
    }
    return numbers.get();
}

}  // namespace allaprima
