// Children of all kinds, as shell scripts: what the supervisor makes of their deaths.
#include "apps/serving/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

#include "apps/serving/notify.h"
#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

WorkerCommand Shell(const std::string& script) {
  return {.program = "/bin/sh",
          .arguments = {"sh", "-c", script},
          .environment = {"PATH=/usr/bin:/bin"},
          .cpus = {}};
}

template <typename Condition>
bool Eventually(Condition condition) {
  const TimePoint end = RealClock().Now() + std::chrono::seconds(20);
  while (!condition()) {
    if (RealClock().Now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

bool Alive(pid_t process) { return ::kill(process, 0) == 0; }

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

pid_t WaitForProcess(const Supervisor& supervisor, pid_t other_than = 0) {
  pid_t process = 0;
  EXPECT_TRUE(Eventually([&] {
    process = supervisor.processes()[0];
    return process != 0 && process != other_than;
  }));
  return process;
}

TEST(SupervisorTest, KilledWorkerIsBackAtOnceEachTime) {
  const auto supervisor = Supervisor::Start({Shell("exec sleep 1000")}).value();
  pid_t process = WaitForProcess(*supervisor);
  for (int i = 0; i < 20; ++i) {
    supervisor->Joined(process);
    ASSERT_EQ(::kill(process, SIGKILL), 0);
    process = WaitForProcess(*supervisor, process);
  }
  EXPECT_FALSE(supervisor->Failed().has_value());
  EXPECT_TRUE(supervisor->Stop(std::chrono::seconds(10)));
  EXPECT_FALSE(Alive(process));
}

TEST(SupervisorTest, WorkerThatCannotStartEndsItWithItsExitStatus) {
  TemporaryFolder folder;
  const auto supervisor =
      Supervisor::Start({Shell("echo x >> " + folder.File("starts") + "; exit 3")}).value();
  ASSERT_TRUE(Eventually([&] { return supervisor->Failed().has_value(); }));
  EXPECT_EQ(supervisor->Failed()->code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(*supervisor->Failed()), HasSubstr("worker 0 died 5 times"));
  EXPECT_THAT(Message(*supervisor->Failed()), HasSubstr("exit status 3"));
  EXPECT_EQ(ReadAll(folder.File("starts")), "x\nx\nx\nx\nx\n");
}

TEST(SupervisorTest, StopAsksAndThenKills) {
  const auto gentle = Supervisor::Start({Shell("exec sleep 1000")}).value();
  WaitForProcess(*gentle);
  EXPECT_TRUE(gentle->Stop(std::chrono::seconds(10)));

  TemporaryFolder folder;
  const auto stubborn = Supervisor::Start({Shell("trap '' TERM; echo x > " + folder.File("up") +
                                                 "; while :; do sleep 1; done")})
                            .value();
  const pid_t process = WaitForProcess(*stubborn);
  ASSERT_TRUE(Eventually([&] { return ReadAll(folder.File("up")) == "x\n"; }));
  EXPECT_FALSE(stubborn->Stop(std::chrono::milliseconds(50)));
  EXPECT_FALSE(Alive(process));
  EXPECT_TRUE(stubborn->Stop(Duration::zero()));
}

TEST(SupervisorTest, WorkerHasNothingOfOursButStderr) {
  TemporaryFolder folder;
  int inherited[2];
  ASSERT_EQ(::pipe(inherited), 0);  // without O_CLOEXEC, as libraries open theirs
  const auto supervisor =
      Supervisor::Start({Shell("ls -l /proc/$$/fd > " + folder.File("part") + "; mv " + folder.File("part") +
                               " " + folder.File("fds") + "; exec sleep 1000")})
          .value();
  ASSERT_TRUE(Eventually([&] { return !ReadAll(folder.File("fds")).empty(); }));
  struct stat ours {};
  ASSERT_EQ(::fstat(inherited[0], &ours), 0);
  const std::string list = ReadAll(folder.File("fds"));
  EXPECT_THAT(list, HasSubstr("/dev/null"));
  EXPECT_EQ(list.find(fmt::format("pipe:[{}]", ours.st_ino)), std::string::npos) << list;
  const pid_t process = WaitForProcess(*supervisor);
  EXPECT_EQ(::getpgid(process), process);
  ::close(inherited[0]);
  ::close(inherited[1]);
}

TEST(SupervisorTest, WorkersDoNotOutliveAProcessThatIsKilled) {
  TemporaryFolder folder;
  const std::string file = folder.File("pid");
  const pid_t parent = ::fork();
  if (parent == 0) {
    const auto supervisor = Supervisor::Start(
        {Shell("echo $$ > " + file + ".part; mv " + file + ".part " + file + "; exec sleep 1000")});
    ::pause();
    ::_exit(0);
  }
  ASSERT_TRUE(Eventually([&] { return !ReadAll(file).empty(); }));
  const pid_t worker = std::stoi(ReadAll(file));
  EXPECT_TRUE(Alive(worker));
  ::kill(parent, SIGKILL);
  // Reparented, it may stay a zombie for a while where nobody reaps: its state says that it is dead.
  EXPECT_TRUE(Eventually([&] {
    const std::string stat = ReadAll(fmt::format("/proc/{}/stat", worker));
    return stat.empty() || stat.find(") Z") != std::string::npos;
  }));
}

TEST(SupervisorTest, ProgramThatIsNotThereIsNamed) {
  WorkerCommand command = Shell("");
  command.program = "/nowhere/palimpsest";
  EXPECT_THAT(Message(Supervisor::Start({command}).status()), HasSubstr("/nowhere/palimpsest"));
}

TEST(SplitCpusTest, SharesAreNeighboursAndComplete) {
  EXPECT_THAT(SplitCpus({0, 1, 2, 3, 4}, 2), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3, 4)));
  EXPECT_THAT(SplitCpus({3, 7}, 2), ElementsAre(ElementsAre(3), ElementsAre(7)));
  EXPECT_THAT(SplitCpus({0, 1}, 4),
              ElementsAre(ElementsAre(0), ElementsAre(0), ElementsAre(1), ElementsAre(1)));
  EXPECT_FALSE(AllowedCpus().empty());
}

TEST(NotifyTest, StateArrivesAtPathsAndAbstractNames) {
  TemporaryFolder folder;
  for (const std::string& name : {folder.File("notify"), fmt::format("@palimpsest-test-{}", ::getpid())}) {
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path - 1);
    if (name[0] == '@') address.sun_path[0] = '\0';
    ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address),
                     static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
              0);
    EXPECT_TRUE(NotifyServiceManager(name, "READY=1").ok());
    char text[32] = {};
    EXPECT_EQ(::recv(fd, text, sizeof text, 0), 7);
    EXPECT_STREQ(text, "READY=1");
    ::close(fd);
  }
  EXPECT_TRUE(NotifyServiceManager("", "READY=1").ok());
  EXPECT_EQ(NotifyServiceManager("relative", "READY=1").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(NotifyServiceManager(folder.File("nobody"), "READY=1").code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace palimpsest
