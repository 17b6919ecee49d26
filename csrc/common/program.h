// Programs of kernels as one array of numbers: a head, then tables.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

namespace icconv_mm {

// Entries of a table appended to numbers, as they lie in memory: the index of the first.
template <typename Entry>
int append(std::vector<int>& numbers, const std::vector<Entry>& entries) {
  numbers.resize((numbers.size() + 3) / 4 * 4);  // entries of four numbers are read at once
  const size_t at = numbers.size(), words = entries.size() * sizeof(Entry) / sizeof(int);
  numbers.resize(at + words);
  if (words > 0) std::memcpy(numbers.data() + at, entries.data(), words * sizeof(int));
  return static_cast<int>(at);
}

}  // namespace icconv_mm
