// The CPU backend: cuts each operation into tasks for the thread pool and calls the kernels of one
// instruction set.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa_kernels.h"

namespace palimpsest::cpu {

// What the buffers on the stack hold and the vectors divide: a multiple of 16, up to 256.
void CheckHeadSize(int64_t head_size);

class CpuBackend final : public Backend {
 public:
  CpuBackend(const IsaKernels& kernels, const ThreadPool::Options& threads);

  std::string name() const override { return std::string("cpu-") + kernels_.name; }
  bool Supports(WeightFormat format) const override { return format == WeightFormat::kBf16 || kernels_.int8; }
  ThreadPool& pool() override { return pool_; }
  PackedWeights Pack(int64_t n, int64_t k, WeightFormat format, const FillRow& fill_row) override;
  void Embed(const EmbedArgs& args) override;
  void RmsNorm(const RmsNormArgs& args) override;
  void MatMul(const MatMulArgs& args) override;
  void StoreKv(const StoreKvArgs& args) override;
  void LoadBlock(const LoadBlockArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void ScoreKeys(const ScoreKeysArgs& args) override;
  void MatchKeys(const MatchKeysArgs& args) override;
  void GatherKv(const GatherKvArgs& args) override;
  void EncodeKv(const EncodeKvArgs& args) override;
  void TokenLosses(const TokenLossesArgs& args) override;
  void BuildDigest(const BuildDigestArgs& args) override;
  void ScoreDigests(const ScoreDigestsArgs& args) override;
  int64_t CarriedFloats(int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_size) const override;
  int64_t workspace_bytes() const override;
  BackendYardsticks MeasureYardsticks() override;

 private:
  // One unit of attention work: rows of one sequence and KV head against a range of its tiles.
  struct AttentionTask {
    int32_t sequence, kv_head;
    int64_t first_row, rows;  // tokens, relative to the sequence
    int64_t first_tile, tile_count;
    int64_t partial;       // where the split's state goes; -1: all splits here, written out at the end
    int64_t columns;       // of a block of rows whose columns are wanted: where their sums go; -1: of none
    int64_t carried = -1;  // where in its sequence's carried state that of these rows is; -1: not carried
  };
  static int64_t OutputStride(int64_t head_size) { return (head_size + 63) / 64 * 64; }
  static int64_t StateFloats(int64_t rows, int64_t o_stride) { return rows * (1 + 16 + o_stride) + 48; }
  static int64_t RoundUp16(int64_t n) { return (n + 15) / 16 * 16; }
  // What attention over some rows needs, in one thread's scratch memory.
  struct State {
    float *m, *l, *o;
  };
  struct Scratch {
    AlignedBuffer<Bf16> q;
    AlignedBuffer<float> wide;  // wide_left: q
    AlignedBuffer<int64_t> positions;
    AlignedBuffer<float> state[2];
    AlignedBuffer<float> rope;
    AlignedBuffer<float> kept, tops;  // weights of the rows in hand, as attend keeps them
    AlignedBuffer<Bf16> tile;         // that is on its way to 2 bits or comes from there
  };

  // Rows of the heads of the call in progress, each head's from head * positions * group on; of each kind
  // what its kernel reads (DigestBlock).
  struct DigestQueries {
    AlignedBuffer<int64_t> counts;  // of each head: rows that are finite
    AlignedBuffer<Bf16> turned;
    AlignedBuffer<int16_t> fixed;
    AlignedBuffer<float> units, wide;
    int64_t bytes() const {
      return counts.size() * 8 + (turned.size() + fixed.size()) * 2 + (units.size() + wide.size()) * 4;
    }
  };

  void PackBf16(PackedWeights& packed, const FillRow& fill_row);
  void PackInt8(PackedWeights& packed, const FillRow& fill_row);
  void MatMulManyRows(const MatMulArgs& args);
  void MatMulFewRows(const MatMulArgs& args);
  const float* WidenQueries(int64_t count, Scratch& scratch) const;
  // Element `at` of the kept weights, which are as the left operand of a product.
  void* KeptAt(Scratch& scratch, int64_t at) const {
    return reinterpret_cast<char*>(scratch.kept.data()) + at * (kernels_.wide_left ? 4 : 2);
  }
  GemmBlock BlockOf(const MatMulArgs& args, int64_t row, int64_t rows, int64_t panel, int64_t column,
                    int64_t columns) const;
  auto GemmOf(const MatMulArgs& args) const {
    return args.weights->format == WeightFormat::kInt8 ? kernels_.gemm_int8 : kernels_.gemm_bf16;
  }
  void WidenActivations(const MatMulArgs& args);
  void QuantizeActivations(const MatMulArgs& args);
  void WriteSlot(const TilePool& pool, const RopeTable& rope, int64_t head_size, int32_t tile, int64_t slot,
                 int64_t position, const Bf16* key, const Bf16* value) const;
  void RotateKey(const RopeTable& rope, int64_t head_size, int64_t offset, const Bf16* key, Bf16* out) const;
  void ScoreHeadKeys(const ScoreKeysArgs& args, const ScoreHead& head, Scratch& scratch) const;
  void TurnQueries(const ScoreKeysArgs& args, const ScoreHead& head, int64_t base, Scratch& scratch) const;
  void MatchSources(const MatchHead& head, int64_t head_size, int64_t first, int64_t count,
                    Scratch& scratch) const;
  void ReadSource(const TilePool& pool, const RopeTable& rope, int64_t head_size, const KvSource& source,
                  int64_t offset, Bf16* key, Bf16* value) const;
  void GatherTile(const GatherKvArgs& args, const GatherHead& head, int64_t i) const;
  void EncodeHeadKv(const EncodeKvArgs& args, const EncodeHead& head, Bf16* whole) const;
  void ReserveDigestQueries(const ScoreDigestsArgs& args);
  void TurnDigestQueries(const ScoreDigestsArgs& args, int64_t head);
  DigestBlock DigestBlockOf(const ScoreDigestsArgs& args, int64_t head, int64_t tile, int64_t tiles) const;
  void PlanAttention(const AttentionArgs& args);
  void PlanColumns(const AttentionArgs& args, size_t sequence, int64_t* columns);
  void ReserveColumns(const AttentionArgs& args, int64_t columns);
  void RunColumnsTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch);
  void AddColumns(const AttentionArgs& args, const AttentionTask& piece, const State& state, Scratch& scratch,
                  float* sums, float* squares) const;
  void JoinColumns(const AttentionArgs& args);
  void RunAttentionTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch);
  void TurnTaskQueries(const AttentionArgs& args, const AttentionTask& task, int64_t base, int64_t shift,
                       Scratch& scratch) const;
  AttendBlock AttendBlockOf(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch,
                            const State& state) const;
  void AttendTiles(const AttentionArgs& args, const AttentionTask& task, int64_t first_tile, int64_t count,
                   Scratch& scratch, const State& state);
  void AttendCoded(const AttentionArgs& args, const AttentionTask& task, std::span<const CodedTile> tiles,
                   Scratch& scratch, const State& state) const;
  State AttendRows(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch);
  void AddSplits(const AttentionArgs& args, const AttentionTask& task, bool fresh, Scratch& scratch,
                 const State& total);
  void RunCarriedTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch);
  void MergePartials(const AttentionArgs& args);
  State StateAt(float* memory, int64_t rows, int64_t o_stride) const;
  void ClearState(const State& state, int64_t rows, int64_t o_stride) const;
  void WriteOut(const AttentionArgs& args, const AttentionTask& task, const State& state);

  const IsaKernels& kernels_;
  ThreadPool pool_;
  std::vector<AttentionTask> tasks_;  // of the call in progress; capacity is kept
  std::vector<Scratch> scratch_;      // by thread
  AlignedBuffer<float> partials_;
  AlignedBuffer<float> columns_;        // sums of blocks of rows, of the call in progress
  std::vector<int64_t> columns_first_;  // of each sequence, where its blocks begin; -1: not wanted
  AlignedBuffer<float> widened_;        // wide_left: activations of the call in progress
  AlignedBuffer<uint8_t> quantized_;    // int8 class: activations of the call in progress
  AlignedBuffer<float> quantized_scales_;
  DigestQueries digest_queries_;
  AlignedBuffer<char> read_yardstick_;
};

}  // namespace palimpsest::cpu
