#include "proto/base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/sizes.h"

namespace palimpsest {
namespace {

constexpr Duration kBarInterval = std::chrono::milliseconds(100);
constexpr Duration kLineInterval = std::chrono::seconds(5);
constexpr double kSmoothingSeconds = 5;  // how far back the shown rate looks
constexpr int kBarColumnsMin = 10, kBarColumnsMax = 40;

void WriteToStderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;  // a closed stderr is no reason to fail the work
    text.remove_prefix(written);
  }
}

std::string Bar(double share, int columns) {
  const int full = static_cast<int>(share * columns);
  return fmt::format("[{:=<{}}{: <{}}] ", "", full, "", columns - full);
}

}  // namespace

ProgressOutput StderrProgress() {
  ProgressOutput output{.write = WriteToStderr, .terminal = isatty(STDERR_FILENO) == 1};
  winsize size{};
  if (output.terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    output.columns = size.ws_col;
  return output;
}

ProgressOutput NoProgress() {
  return {.write = [](std::string_view) {}};
}

std::string FormatSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(std::clamp(seconds, 0.0, 1e12)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

Progress::Progress(std::string_view label, std::string unit, int64_t total, ProgressOutput output,
                   const Clock& clock)
    : label_(OneLine(label, 40)),
      unit_(std::move(unit)),
      total_(total),
      output_(std::move(output)),
      clock_(clock),
      start_(clock.Now()),
      interval_(output_.terminal ? kBarInterval : kLineInterval),
      next_draw_(output_.terminal ? start_ : start_ + interval_),
      drawn_at_(start_) {}

Progress::~Progress() {
  std::lock_guard<std::mutex> lock(mu_);
  if (!finished_ && drawn_ && output_.terminal) output_.write("\n");
}

void Progress::Add(int64_t amount) {
  done_.fetch_add(amount, std::memory_order_relaxed);
  const TimePoint now = clock_.Now();
  if (now < next_draw_.load(std::memory_order_relaxed)) return;
  std::unique_lock<std::mutex> lock(mu_, std::try_to_lock);
  if (!lock.owns_lock()) return;  // another thread draws
  if (finished_ || now < next_draw_.load(std::memory_order_relaxed)) return;
  Draw(now);
  next_draw_.store(now + interval_, std::memory_order_relaxed);
}

void Progress::Draw(TimePoint now) {
  const int64_t done = done_.load(std::memory_order_relaxed);
  const double elapsed = Seconds(now - drawn_at_);
  if (elapsed > 0) {
    const double recent = static_cast<double>(done - drawn_done_) / elapsed;
    const double weight = rate_ == 0 ? 1 : 1 - std::exp(-elapsed / kSmoothingSeconds);
    rate_ += weight * (recent - rate_);
    drawn_at_ = now;
    drawn_done_ = done;
  }
  drawn_ = true;
  output_.write(Line(done) + (output_.terminal ? "\x1b[K\r" : "\n"));
}

std::string Progress::Line(int64_t done) const {
  const double share =
      total_ > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total_)) : 0;
  std::string facts;
  if (total_ > 0) {
    facts = fmt::format("{:3.0f}%  {} of {}", std::floor(100 * share), Amount(done), Amount(total_));
  } else {
    facts = Amount(done);
  }
  if (rate_ > 0) facts += fmt::format("  {}", Rate(rate_));
  if (rate_ > 0 && total_ > done) {
    facts += fmt::format("  {} left", FormatSeconds(static_cast<double>(total_ - done) / rate_));
  }
  if (!output_.terminal) return fmt::format("{} {}", label_, facts);
  // A line that reaches the last column would wrap, and the next one would not overwrite it.
  const int room = output_.columns - 1 - static_cast<int>(label_.size() + 1 + facts.size() + 3);
  std::string bar;
  if (total_ > 0 && room >= kBarColumnsMin) bar = Bar(share, std::min(room, kBarColumnsMax));
  std::string line = fmt::format("{} {}{}", label_, bar, facts);
  if (static_cast<int>(line.size()) >= output_.columns)
    line = facts.substr(0, std::max(output_.columns - 1, 0));
  return line;
}

void Progress::Done() {
  std::lock_guard<std::mutex> lock(mu_);
  if (finished_) return;
  finished_ = true;
  const double seconds = Seconds(clock_.Now() - start_);
  std::string line = fmt::format("{}: {} in {:.1f} s", label_, Amount(done()), seconds);
  if (seconds > 0) line += fmt::format(", {}", Rate(static_cast<double>(done()) / seconds));
  output_.write(line + (output_.terminal ? "\x1b[K\n" : "\n"));
}

std::string Progress::Amount(int64_t amount) const {
  return unit_ == "bytes" ? ApproximateBytes(static_cast<double>(amount))
                          : fmt::format("{} {}", amount, unit_);
}

std::string Progress::Rate(double per_second) const {
  if (unit_ == "bytes") return fmt::format("{}/s", ApproximateBytes(per_second));
  return fmt::format("{:.{}f} {}/s", per_second, per_second < 9.95 ? 1 : 0, unit_);
}

}  // namespace palimpsest
