// Documents, tokens, models and the description of it all: the handlers with a fake coordinator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <boost/json.hpp>
#include <cctype>
#include <fstream>
#include <functional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "coordinator/http/api.h"
#include "coordinator/http/api_routes.h"
#include "coordinator/receipt_json.h"
#include "proto/base/policy_spec.h"
#include "proto/base/recall_spec.h"
#include "tests/coordinator/http/fakes.h"
#include "tests/coordinator/http/sent_response.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;
using ::palimpsest::testing::FakeCoordinator;
using ::palimpsest::testing::FakeResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ToolsApiTest : public ::testing::Test {
 protected:
  json::value Call(const std::string& method, const std::string& path, Request request = {}) {
    const Router::Match match = router_.Find(method, path);
    if (match.route == nullptr) {
      ADD_FAILURE() << method << " " << path << " has no route";
      return nullptr;
    }
    request.method = method;
    request.path = path;
    request.parameters = match.parameters;
    request.tenant = "team-a";
    FakeResponse response;
    match.route->handler(request, response);
    status_ = response.status();
    type_ = response.type();
    body_ = response.body();
    headers_ = response.headers();
    json::error_code error;
    return json::parse(body_, error);
  }
  json::value Post(const std::string& path, const std::string& body) {
    Request request;
    request.body = body;
    request.headers["content-type"] = "application/json";
    return Call("POST", path, std::move(request));
  }
  json::value Upload(const std::string& text, std::map<std::string, std::string> query = {},
                     const std::string& type = "text/plain") {
    Request request;
    request.body_file = folder_.path() + "/upload";
    std::ofstream(request.body_file, std::ios::binary) << text;
    request.query = std::move(query);
    if (!type.empty()) request.headers["content-type"] = type;
    return Call("POST", "/v1/documents", std::move(request));
  }
  std::string Code() const { return std::string(json::parse(body_).at("error").at("code").as_string()); }
  std::string Param() const { return std::string(json::parse(body_).at("error").at("param").as_string()); }

  TemporaryFolder folder_;
  FakeCoordinator coordinator_;
  const Router router_ =
      MakePublicRouter({.coordinator = &coordinator_, .metrics = nullptr, .config = Config{}});
  int status_ = 0;
  std::string type_, body_;
  Headers headers_;
};

TEST_F(ToolsApiTest, UploadIsADocumentThatIsBeingRead) {
  const json::value document = Upload("hello", {{"name", "a.txt"}});
  EXPECT_EQ(status_, 201) << body_;
  EXPECT_EQ(headers_.at("location"), "/v1/documents/doc-0000000000000000");
  EXPECT_EQ(document.at("id").as_string(), "doc-0000000000000000");
  EXPECT_EQ(document.at("name").as_string(), "a.txt");
  EXPECT_EQ(document.at("status").as_string(), "reading");
  EXPECT_EQ(document.at("progress").at("total_tokens").as_int64(), 5);
  EXPECT_EQ(document.at("created_at").as_int64(), 1'700'000'000);
  EXPECT_FALSE(document.at("already_known").as_bool());
  EXPECT_TRUE(document.at("error").is_null());
  EXPECT_EQ(coordinator_.last_tenant, "team-a");
  EXPECT_TRUE(Upload("hello").at("already_known").as_bool());
  EXPECT_EQ(status_, 200);
}

TEST_F(ToolsApiTest, UploadMayWaitUntilItIsRead) {
  coordinator_.waits = 3;
  EXPECT_EQ(Upload("hello", {{"wait", "60"}}).at("status").as_string(), "ready");
  EXPECT_EQ(status_, 201);
}

// Each holds a thread of the server.
TEST_F(ToolsApiTest, OnlySoManyWaitAtOnce) {
  const std::string path = "/v1/documents/" + std::string(Upload("some text").at("id").as_string());
  const Router::Match match = router_.Find("GET", path);
  Request request;
  request.parameters = match.parameters;
  request.query["wait"] = "3600";
  std::atomic<int> waiting{0};
  std::atomic<bool> ready{false};
  coordinator_.on_wait = [&] {
    ++waiting;
    while (!ready) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  std::vector<std::thread> clients;
  std::array<FakeResponse, 16> responses;
  for (FakeResponse& response : responses) {  // one after the other, as the fake is nobody's but one's
    const int before = waiting;
    clients.emplace_back([&] { match.route->handler(request, response); });
    while (waiting == before) std::this_thread::yield();
  }
  FakeResponse one_more;
  std::thread late([&] { match.route->handler(request, one_more); });
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!one_more.ended() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(one_more.ended());
  ready = true;
  for (std::thread& client : clients) client.join();
  late.join();
  EXPECT_THAT(one_more.body(), HasSubstr(R"("reading")"));
  for (const FakeResponse& response : responses) EXPECT_THAT(response.body(), HasSubstr(R"("ready")"));
  FakeResponse next;
  match.route->handler(request, next);
  EXPECT_THAT(next.body(), HasSubstr(R"("ready")"));
}

TEST_F(ToolsApiTest, DocumentThatNeverFitsIsTheRequestsFaultAndAFullDiskIsNot) {
  coordinator_.add_error = MarkOverWindow(ResourceExhausted("needs 5 bytes of 4"));
  Upload("some text");
  EXPECT_EQ(status_, 400);
  EXPECT_EQ(Code(), "context_length_exceeded");
  coordinator_.add_error = ResourceExhausted("the disk is full");
  Upload("some text");
  EXPECT_EQ(status_, 507);
}

TEST_F(ToolsApiTest, UploadTakesTextOnly) {
  EXPECT_EQ(Upload("# x", {}, "text/markdown; charset=\"UTF-8\"").at("object").as_string(), "document");
  Upload("x", {}, "application/octet-stream");
  EXPECT_EQ(status_, 201);
  Upload("y", {}, "");
  EXPECT_EQ(status_, 201);
  for (const char* type : {"multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
                           "application/pdf", "text/plain; charset=latin1"}) {
    Upload("z", {}, type);
    EXPECT_EQ(status_, 415) << type;
  }
  Upload("z", {}, "multipart/form-data; boundary=x");
  EXPECT_THAT(body_, HasSubstr("--data-binary"));
}

TEST_F(ToolsApiTest, WrongUploadsAreRefused) {
  Upload("x", {{"nmae", "a"}});
  EXPECT_EQ(status_, 400);
  EXPECT_EQ(Param(), "nmae");
  for (const char* wait : {"", "-1", "1.5", "x", "3601", "99999999999999999999"}) {
    Upload("x", {{"wait", wait}});
    EXPECT_EQ(status_, 400) << wait;
    EXPECT_EQ(Param(), "wait");
  }
  Upload("x", {{"name", std::string(5000, 'n')}});
  EXPECT_EQ(Param(), "name");
  Upload("x\xff");
  EXPECT_EQ(status_, 400);
  EXPECT_TRUE(coordinator_.documents.empty());
}

TEST_F(ToolsApiTest, DocumentsAreListedShownAndDeleted) {
  Upload("hello", {{"name", "bad\xffname"}});
  const json::value list = Call("GET", "/v1/documents");
  ASSERT_EQ(list.at("data").as_array().size(), 1u);
  EXPECT_EQ(list.at("data").at(0).at("name").as_string(), "bad\\xffname");
  const std::string path = "/v1/documents/doc-0000000000000000";
  DocumentState& state = coordinator_.documents.at("doc-0000000000000000").first;
  state.host_bytes = 4096;
  state.ssd_bytes = 2048;
  EXPECT_EQ(json::serialize(Call("GET", path).at("tier_bytes")), R"({"host":4096,"ssd":2048})");
  EXPECT_EQ(Call("GET", path).at("progress").at("done_tokens").as_int64(), 0);
  Call("GET", path + "/text");
  EXPECT_EQ(body_, "hello");
  EXPECT_EQ(type_, "text/plain; charset=utf-8");
  EXPECT_TRUE(Call("DELETE", path).at("deleted").as_bool());
  for (const char* tail : {"", "/text"}) {
    Call("GET", path + tail);
    EXPECT_EQ(status_, 404);
    EXPECT_EQ(Code(), "document_not_found");
  }
  Call("DELETE", path);
  EXPECT_EQ(status_, 404);
}

// Each text is in memory until its client has it: one answer after the other is held up by the next request.
TEST_F(ToolsApiTest, SoManyTextsAreSentAtOnce) {
  Upload("hello");
  const std::string path = "/v1/documents/doc-0000000000000000/text";
  const Router::Match match = router_.Find("GET", path);
  ASSERT_NE(match.route, nullptr);
  Request request;
  request.parameters = match.parameters;
  request.tenant = "team-a";
  std::vector<int> statuses;
  class Slow final : public SentResponse {
   public:
    explicit Slow(std::function<void()> meanwhile) : meanwhile_(std::move(meanwhile)) {}
    void Send(int status_sent, std::string_view type_sent, std::string body_sent,
              const Headers& more_sent) override {
      if (status_sent == 200) meanwhile_();
      SentResponse::Send(status_sent, type_sent, std::move(body_sent), more_sent);
    }

   private:
    const std::function<void()> meanwhile_;
  };
  const std::function<void()> ask = [&] {
    Slow response(ask);
    match.route->handler(request, response);
    statuses.push_back(response.status);
  };
  ask();
  EXPECT_THAT(statuses, ElementsAre(503, 200, 200, 200, 200));
  EXPECT_EQ((Call("GET", path), status_), 200) << "the places are free again";
}

TEST_F(ToolsApiTest, TextBecomesIdsAndIdsText) {
  const json::value tokens = Post("/tokenize", R"({"text": "a<end>"})");
  EXPECT_EQ(json::serialize(tokens), R"({"tokens":[97,60,101,110,100,62],"count":6,"max_model_len":100})");
  EXPECT_EQ(Post("/tokenize", R"({"prompt": "a"})").at("count").as_int64(), 1);
  const json::value chat = Post("/tokenize", R"({"messages": [{"role": "user", "content": "a<end>"}]})");
  EXPECT_EQ(json::serialize(chat.at("tokens")), "[256,117,58,97,60,101,110,100,62,257,97,58]");
  EXPECT_EQ(json::serialize(Post("/detokenize", R"({"tokens": [256, 97, 226]})")), R"({"text":"<start>a)"
                                                                                   "\uFFFD"
                                                                                   R"("})");
}

TEST_F(ToolsApiTest, WrongTokenRequestsAreRefused) {
  const std::tuple<const char*, const char*, const char*> table[] = {
      {"/tokenize", "{}", "text"},
      {"/tokenize", R"({"text": "a", "messages": []})", "text"},
      {"/tokenize", R"({"text": 1})", "text"},
      {"/tokenize", R"({"messages": []})", "messages"},
      {"/tokenize", R"({"text": "a", "x": 1})", "x"},
      {"/tokenize", R"({"text": "a", "model": 1})", "model"},
      {"/detokenize", "{}", "tokens"},
      {"/detokenize", R"({"tokens": [1, 258]})", "tokens[1]"},
      {"/detokenize", R"({"tokens": ["a"]})", "tokens[0]"},
  };
  for (const auto& [path, body, param] : table) {
    Post(path, body);
    EXPECT_EQ(status_, 400) << body;
    EXPECT_EQ(Param(), param) << body;
  }
}

TEST_F(ToolsApiTest, ModelIsTold) {
  EXPECT_EQ(json::serialize(Call("GET", "/v1/models")),
            R"({"object":"list","data":[{"id":"tiny","object":"model","created":1700000000,)"
            R"("owned_by":"palimpsest","max_model_len":100}]})");
  EXPECT_EQ(Call("GET", "/v1/models/tiny").at("id").as_string(), "tiny");
  for (const char* other : {"gpt-4", "org/tiny", "tiny/"}) {
    Call("GET", "/v1/models/" + std::string(other));
    EXPECT_EQ(status_, 404);
    EXPECT_EQ(Code(), "model_not_found");
    EXPECT_THAT(body_, HasSubstr(fmt::format("'{}'", other)));
  }
}

TEST_F(ToolsApiTest, VersionIsToldAsVllmDoes) {
  Registry registry({.version = "1.2.3", .cluster_id = "", .model_hash = ""}, RealClock());
  coordinator_.workers = &registry;
  EXPECT_EQ(json::serialize(Call("GET", "/version")), R"({"version":"1.2.3"})");
}

TEST_F(ToolsApiTest, HealthSaysNothingElse) {
  EXPECT_EQ(json::serialize(Call("GET", "/health")), R"({"status":"ok"})");
}

TEST_F(ToolsApiTest, DescriptionHasTheRoutesAndTheyHaveIt) {
  const json::value description = Call("GET", "/openapi.json");
  EXPECT_EQ(description.at("openapi").as_string(), "3.0.3");
  std::set<std::string> described, routed;
  for (const auto& path : description.at("paths").as_object()) {
    for (const auto& operation : path.value().as_object()) {
      std::string method(operation.key());
      for (char& c : method) c = static_cast<char>(std::toupper(c));
      described.insert(method + " " + std::string(path.key()));
    }
  }
  for (const Route& route : router_.routes()) routed.insert(route.method + " " + route.pattern);
  EXPECT_EQ(described, routed);
}

TEST_F(ToolsApiTest, DescriptionHasTheLimitsOfThisServer) {
  Config config;
  config.limits.choices = 3;
  const json::value description =
      json::parse(OpenApiJson({.coordinator = &coordinator_, .metrics = nullptr, .config = config}));
  const json::value& schemas = description.at("components").at("schemas");
  EXPECT_EQ(schemas.at("ChatRequest").at("properties").at("n").at("maximum").as_int64(), 3);
  EXPECT_EQ(
      schemas.at("DetokenizeRequest").at("properties").at("tokens").at("items").at("maximum").as_int64(),
      257);
}

// Of a text the words, such as "criticalkv".
std::set<std::string> WordsOf(std::string_view text) {
  std::set<std::string> words;
  std::string word;
  for (const char c : text) {
    const bool inside = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    if (inside) word += c;
    if (!inside && !word.empty()) words.insert(std::exchange(word, {}));
  }
  if (!word.empty()) words.insert(word);
  return words;
}

// An unknown name is refused with all that there are: behind `lead` stands the list of them.
std::set<std::string> NamesIn(const absl::Status& refusal, std::string_view lead) {
  const std::string message = Message(refusal);
  const size_t at = message.find(lead);
  if (at == std::string::npos) {
    ADD_FAILURE() << message;
    return {};
  }
  std::set<std::string> names = WordsOf(std::string_view(message).substr(at + lead.size()));
  names.erase("and");
  return names;
}

TEST_F(ToolsApiTest, DescriptionHasEveryPolicyAndRecall) {
  const json::value description = Call("GET", "/openapi.json");
  const json::value& own = description.at("components").at("schemas").at("Own").at("properties");
  const auto expect_all = [&](const char* field, const std::set<std::string>& names) {
    const std::set<std::string> words = WordsOf(own.at(field).at("description").as_string());
    EXPECT_GE(names.size(), 4u);
    for (const std::string& name : names) EXPECT_TRUE(words.contains(name)) << field << " " << name;
  };
  expect_all("policy", NamesIn(ParsePolicy("zzzzzzzzzzzz").status(), "there are "));
  expect_all("recall", NamesIn(ParseRecall("zzzzzzzzzzzz").status(), "there are "));
  expect_all("recall", NamesIn(ParseRecall("slices:zzzzzzzzzzzz=1").status(), "it has "));
}

TEST_F(ToolsApiTest, DescriptionSaysWhichRoutesNeedAKey) {
  const json::value description = Call("GET", "/openapi.json");
  for (const Route& route : router_.routes()) {
    std::string method = route.method;
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    const json::value& operation = description.at("paths").at(route.pattern).at(method);
    EXPECT_EQ(operation.at("security").as_array().empty(), route.access == Route::Access::kOpen)
        << route.pattern;
  }
}

// Every property of every object, at any depth.
void ExpectDescribed(const json::value& schema, const std::string& path) {
  if (const json::object* const object = schema.if_object()) {
    if (const json::value* const properties = object->if_contains("properties")) {
      for (const auto& property : properties->as_object()) {
        const std::string name = path + "." + std::string(property.key());
        const json::object& inner = property.value().as_object();
        EXPECT_TRUE(inner.contains("description") || inner.contains("$ref") || inner.contains("allOf"))
            << name;
      }
    }
    for (const auto& field : *object) ExpectDescribed(field.value(), path + "." + std::string(field.key()));
  } else if (const json::array* const array = schema.if_array()) {
    for (const json::value& element : *array) ExpectDescribed(element, path + "[]");
  }
}

TEST_F(ToolsApiTest, DescriptionExplainsEveryField) {
  ExpectDescribed(Call("GET", "/openapi.json"), "openapi");
}

// Names of fields, within objects too.
std::set<std::string> FieldNames(const json::value& object, const std::string& path) {
  std::set<std::string> names;
  for (const auto& field : object.as_object()) {
    const std::string name = path + "." + std::string(field.key());
    names.insert(name);
    if (field.value().is_object()) names.merge(FieldNames(field.value(), name));
  }
  return names;
}
std::set<std::string> DescribedNames(const json::value& schemas, const json::value& schema,
                                     const std::string& path) {
  std::set<std::string> names;
  if (const json::value* const other = schema.as_object().if_contains("$ref")) {
    const std::string_view name = other->as_string();
    return DescribedNames(schemas, schemas.at(name.substr(name.rfind('/') + 1)), path);
  }
  const json::value* const properties = schema.as_object().if_contains("properties");
  if (properties == nullptr) return names;
  for (const auto& property : properties->as_object()) {
    const std::string name = path + "." + std::string(property.key());
    names.insert(name);
    names.merge(DescribedNames(schemas, property.value(), name));
  }
  return names;
}

TEST_F(ToolsApiTest, DescriptionOfAReceiptHasEveryFieldOfOne) {
  const json::value description = Call("GET", "/openapi.json");
  const json::value& schemas = description.at("components").at("schemas");
  EXPECT_EQ(DescribedNames(schemas, schemas.at("Receipt"), "receipt"),
            FieldNames(ReceiptJson({}), "receipt"));
}

}  // namespace
}  // namespace palimpsest::http
