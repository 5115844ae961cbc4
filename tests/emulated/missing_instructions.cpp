// Instructions that no emulated processor has, done by the handler of SIGILL: the tiles of AMX, and
// vdpbf16ps. Intel SDM volume 2: "VEX prefix", "EVEX prefix", and the pages of the instructions.
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Tile {
  uint8_t rows = 0;
  uint16_t bytes = 0;  // of a row
  alignas(64) uint8_t data[16][64];
};
Tile tiles[8];
long done[2];  // tile instructions, vdpbf16ps

float low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float high(uint32_t pair) { return std::bit_cast<float>(pair & 0xFFFF0000u); }

template <typename T>
T read(const void* from) {
  T x;
  std::memcpy(&x, from, sizeof(T));
  return x;
}

greg_t general(const ucontext_t& context, int number) {
  constexpr int places[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context.uc_mcontext.gregs[places[number]];
}

unsigned state_offset(unsigned component) {
  unsigned a, b, c, d;
  __cpuid_count(0xD, component, a, b, c, d);
  return b;
}

// A vector register lies in pieces in the state that the kernel saved: write puts it there.
void vector_register(ucontext_t& context, int number, uint8_t (&x)[64], bool write) {
  auto* state = reinterpret_cast<uint8_t*>(context.uc_mcontext.fpregs);
  const auto move = [&](uint8_t* piece, int from, int size) {
    write ? std::memcpy(piece, x + from, size) : std::memcpy(x + from, piece, size);
  };
  if (number < 16) {
    move(state + 160 + 16 * number, 0, 16);
    move(state + state_offset(2) + 16 * number, 16, 16);
    move(state + state_offset(6) + 32 * number, 32, 32);
  } else {
    move(state + state_offset(7) + 64 * (number - 16), 0, 64);
  }
  constexpr uint64_t present = 0b11100110;  // SSE, AVX and AVX-512 have values
  if (write) *reinterpret_cast<uint64_t*>(state + 512) |= present;
}

// The operand in memory: base + displacement, and index times scale, which tiles call their stride.
struct Address {
  uint64_t base, index;
};

// at: behind ModRM; moves behind the operand. Short displacements are in units of `unit`.
Address address(const ucontext_t& context, const uint8_t*& at, uint8_t modrm, bool x, bool b,
                int unit) {
  const int mod = modrm >> 6, rm = modrm & 7;
  Address found{0, 0};
  bool no_base = mod == 0 && rm == 5;  // relative to the next instruction
  const bool relative = no_base;
  if (rm == 4) {
    const uint8_t sib = *at++;
    const int index = (sib >> 3 & 7) | x << 3;
    if (index != 4) found.index = static_cast<uint64_t>(general(context, index)) << (sib >> 6);
    no_base = mod == 0 && (sib & 7) == 5;
    if (!no_base) found.base = general(context, (sib & 7) | b << 3);
  } else if (!no_base) {
    found.base = general(context, rm | b << 3);
  }
  if (mod == 2 || no_base) {
    found.base += read<int32_t>(at);
    at += 4;
  } else if (mod == 1) {
    found.base += static_cast<int8_t>(*at++) * unit;
  }
  if (relative) found.base += reinterpret_cast<uint64_t>(at);
  return found;
}

void multiply(Tile& c, const Tile& a, const Tile& b) {
  for (int i = 0; i < c.rows; ++i) {
    for (int j = 0; j < c.bytes / 4; ++j) {
      float sum = read<float>(c.data[i] + 4 * j);
      for (int k = 0; k < a.bytes / 4; ++k) {
        const auto x = read<uint32_t>(a.data[i] + 4 * k), y = read<uint32_t>(b.data[k] + 4 * j);
        sum += low(x) * low(y);
        sum += high(x) * high(y);
      }
      std::memcpy(c.data[i] + 4 * j, &sum, 4);
    }
  }
}

void configure(const uint8_t* from) {
  for (int i = 0; i < 8; ++i) {
    tiles[i] = {};
    tiles[i].bytes = read<uint16_t>(from + 16 + 2 * i);
    tiles[i].rows = from[48 + i];
  }
}

// VEX, three bytes: the tile instructions. Null where it is another.
const uint8_t* tile_instruction(const ucontext_t& context, const uint8_t* code) {
  const bool x = !(code[1] >> 6 & 1), b = !(code[1] >> 5 & 1);
  const int map = code[1] & 31, prefix = code[2] & 3, second = ~(code[2] >> 3) & 7;
  const uint8_t opcode = code[3], modrm = code[4];
  const uint8_t* at = code + 5;
  Tile& tile = tiles[modrm >> 3 & 7];
  const bool memory = modrm >> 6 != 3;
  const auto find = [&] { return address(context, at, modrm, x, b, 1); };
  const auto row = [](const Address& a, int i) {
    return reinterpret_cast<uint8_t*>(a.base + i * a.index);
  };
  if (map != 2) return nullptr;
  if (opcode == 0x49 && prefix == 0 && memory) {  // ldtilecfg
    const Address from = find();
    configure(reinterpret_cast<const uint8_t*>(from.base + from.index));
  } else if (opcode == 0x49 && prefix == 0) {  // tilerelease
    for (Tile& each : tiles) each = {};
  } else if (opcode == 0x49 && prefix == 3) {  // tilezero
    std::memset(tile.data, 0, sizeof(tile.data));
  } else if (opcode == 0x4B && prefix == 3) {  // tileloadd
    const Address from = find();
    for (int i = 0; i < tile.rows; ++i) std::memcpy(tile.data[i], row(from, i), tile.bytes);
  } else if (opcode == 0x4B && prefix == 2) {  // tilestored
    const Address to = find();
    for (int i = 0; i < tile.rows; ++i) std::memcpy(row(to, i), tile.data[i], tile.bytes);
  } else if (opcode == 0x5C && prefix == 2) {  // tdpbf16ps
    multiply(tile, tiles[modrm & 7], tiles[second]);
  } else {
    return nullptr;
  }
  ++done[0];
  return at;
}

// EVEX: vdpbf16ps of 512 bits without a mask. Null where it is another.
const uint8_t* vector_instruction(ucontext_t& context, const uint8_t* code) {
  const bool r = !(code[1] >> 7), x = !(code[1] >> 6 & 1), b = !(code[1] >> 5 & 1);
  const bool r2 = !(code[1] >> 4 & 1), v2 = !(code[3] >> 3 & 1), broadcast = code[3] >> 4 & 1;
  const bool ours = (code[1] & 7) == 2 && (code[2] & 3) == 2 && code[4] == 0x52 &&
                    (code[3] & 7) == 0 && (code[3] >> 5 & 3) == 2;
  if (!ours) return nullptr;
  const uint8_t modrm = code[5];
  const uint8_t* at = code + 6;
  uint8_t sums[64], first[64], second[64];
  const int to = (modrm >> 3 & 7) | r << 3 | r2 << 4;
  vector_register(context, to, sums, false);
  vector_register(context, (~(code[2] >> 3) & 15) | v2 << 4, first, false);
  if (modrm >> 6 == 3) {
    vector_register(context, (modrm & 7) | b << 3 | x << 4, second, false);
  } else {
    const Address from = address(context, at, modrm, x, b, broadcast ? 4 : 64);
    const auto* memory = reinterpret_cast<const uint8_t*>(from.base + from.index);
    for (int i = 0; i < 16; ++i) std::memcpy(second + 4 * i, memory + (broadcast ? 0 : 4 * i), 4);
  }
  for (int i = 0; i < 64; i += 4) {
    const auto a = read<uint32_t>(first + i), c = read<uint32_t>(second + i);
    float sum = read<float>(sums + i);
    sum += high(a) * high(c);
    sum += low(a) * low(c);
    std::memcpy(sums + i, &sum, 4);
  }
  vector_register(context, to, sums, true);
  ++done[1];
  return at;
}

void handle(int, siginfo_t*, void* where) {
  auto& context = *static_cast<ucontext_t*>(where);
  const auto* code = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  const uint8_t* next = code[0] == 0xC4   ? tile_instruction(context, code)
                        : code[0] == 0x62 ? vector_instruction(context, code)
                                          : nullptr;
  if (next == nullptr) {
    std::printf("an unknown instruction:");
    for (int i = 0; i < 12; ++i) std::printf(" %02x", code[i]);
    std::puts("");
    std::exit(3);
  }
  context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(next);
}

}  // namespace

void emulate_missing_instructions() {
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, nullptr);
  std::atexit([] { std::printf("emulated: %ld of AMX, %ld vdpbf16ps\n", done[0], done[1]); });
}
