#include "coordinator/catalog.h"

#include <algorithm>
#include <functional>
#include <mutex>
#include <tuple>
#include <utility>

#include "coordinator/catalog_database.h"
#include "coordinator/catalog_document.h"
#include "coordinator/catalog_record.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

using Change = CatalogDatabase::Change;
using View = CatalogDatabase::View;

constexpr size_t kIdPrefixMin = 8;

DocumentInfo InfoOf(const Hash256& content, InfoRecord record) {
  return {.id = IdOf(content),
          .path = std::move(record.path),
          .bytes = static_cast<int64_t>(record.text_bytes),
          .tokens = static_cast<int64_t>(record.tokens),
          .created_unix_ms = record.created_unix_ms,
          .content_hash = content.ToHex()};
}

// Damage, logged, counts as absence: for what can be made again.
template <typename T>
absl::StatusOr<std::optional<T>> NothingIfDamaged(absl::StatusOr<std::optional<T>> read,
                                                  const Hash256& content) {
  if (read.status().code() != absl::StatusCode::kDataLoss) return read;
  PALIMPSEST_LOG(kWarn, "catalog damaged, to be written again document {} error {}", LogName(IdOf(content)),
                 read.status());
  return std::optional<T>();
}

absl::Status CheckDocument(std::string_view path, std::string_view text) {
  if (text.empty()) return InvalidArgument("document {} has no text", Quoted(path, 1024));
  if (text.size() > kTextBytesMax) {
    return InvalidArgument("document {} has {} bytes: at most {}; split it", Quoted(path, 1024), text.size(),
                           kTextBytesMax);
  }
  if (path.size() <= kPathBytesMax) return absl::OkStatus();
  return InvalidArgument("a path of {} bytes: at most {}", path.size(), kPathBytesMax);
}

absl::Status CheckTokenIds(const std::vector<int32_t>& ids) {
  if (ids.size() > kTokensMax) return InvalidArgument("{} token ids: at most {}", ids.size(), kTokensMax);
  const auto negative = std::find_if(ids.begin(), ids.end(), [](int32_t id) { return id < 0; });
  if (negative == ids.end()) return absl::OkStatus();
  return InvalidArgument("token id {} at {} is negative", *negative, negative - ids.begin());
}

// What the views of all tenants share.
struct Store {
  const std::shared_ptr<const DataFolder> folder;  // keeps the lock
  const Clock& clock;
  const std::unique_ptr<CatalogDatabase> database;
  std::mutex writer;        // held over I/O: a document's records are written as one
  bool unfinished = false;  // guarded by writer: an Add failed and left records behind
};

using InfoVisitor =
    std::function<bool(const Hash256& content, std::string_view key, std::string_view record)>;

// Documents of all tenants whose hash begins with these hex digits, until `visit` returns false.
absl::Status ScanInfos(const View& view, std::string_view digits, const InfoVisitor& visit) {
  // The first hash that begins with these digits is the one with zeros behind them.
  const auto lowest = Hash256::FromHex(std::string(digits) + std::string(64 - digits.size(), '0'));
  return view.Scan(InfoKey(*lowest), PrefixEnd(std::string(kInfoPrefix)),
                   [&](std::string_view key, std::string_view record) {
                     const std::optional<Hash256> content = ContentOfKey(key);
                     if (!content || !content->ToHex().starts_with(digits)) return false;
                     return visit(*content, key, record);
                   });
}

class CatalogImpl final : public Catalog {
 public:
  CatalogImpl(std::shared_ptr<Store> store, std::string tenant)
      : store_(std::move(store)), tenant_(std::move(tenant)), database_(store_->database.get()) {}

  // The format is the one this build reads, and what interrupted Adds left is removed.
  absl::Status Prepare();

  absl::StatusOr<Added> Add(std::string_view path, std::string_view text, std::string_view tokenizer_hash,
                            const std::vector<int32_t>& token_ids) override;
  absl::StatusOr<std::optional<DocumentInfo>> FindByContent(std::string_view text) const override;
  absl::StatusOr<DocumentInfo> Find(std::string_view id) const override;
  absl::StatusOr<Document> Get(std::string_view id, std::string_view tokenizer_hash) const override;
  absl::StatusOr<DocumentTokens> GetTokenIds(std::string_view id,
                                             std::string_view tokenizer_hash) const override;
  absl::Status PutTokenIds(std::string_view id, std::string_view tokenizer_hash,
                           const std::vector<int32_t>& token_ids) override;
  absl::StatusOr<std::vector<DocumentInfo>> List() const override;
  absl::Status Delete(std::string_view id) override;
  std::shared_ptr<Catalog> OfTenant(std::string_view tenant) const override {
    return std::make_shared<CatalogImpl>(store_, std::string(tenant));
  }

 private:
  absl::Status CheckFormat(const View& view);
  absl::Status RemoveUnfinished();
  absl::Status CheckIdIsFree(const View& view, const Hash256& content) const;
  absl::Status WriteDocument(const Hash256& content, const InfoRecord& info, std::string_view text,
                             const Hash256& tokenizer, const std::vector<int32_t>* token_ids);
  absl::StatusOr<Hash256> Resolve(const View& view, std::string_view id) const;
  bool MayName(const Hash256& content, std::string_view key, std::string_view record,
               std::string_view id) const;

  const std::shared_ptr<Store> store_;  // shared with the other tenants' views
  const std::string tenant_;
  CatalogDatabase* const database_;  // the store's
};

absl::Status CatalogImpl::Prepare() {
  PALIMPSEST_RETURN_IF_ERROR(CheckFormat(*database_->MakeView()));
  return RemoveUnfinished();
}

absl::Status CatalogImpl::CheckFormat(const View& view) {
  const auto body = ReadRecord(view, RecordKind::kFormat, FormatKey());
  if (!body.ok()) {
    return Error(body.status().code(), "catalog {}: its format cannot be read: {}",
                 Quoted(store_->folder->CatalogPath(), 4096), Message(body.status()));
  }
  if (body->has_value()) return absl::OkStatus();
  CatalogWriter writer(database_);
  PALIMPSEST_RETURN_IF_ERROR(writer.Put(RecordKind::kFormat, FormatKey(), ""));
  return writer.Finish();
}

absl::Status CatalogImpl::RemoveUnfinished() {
  std::vector<std::pair<Hash256, bool>> unfinished;  // and whether it was there before and was being repaired
  {
    const std::unique_ptr<View> view = database_->MakeView();
    const std::string end = PrefixEnd(std::string(kUnfinishedPrefix));
    PALIMPSEST_RETURN_IF_ERROR(
        view->Scan(kUnfinishedPrefix, end, [&](std::string_view key, std::string_view) {
          if (const std::optional<Hash256> content = ContentOfKey(key))
            unfinished.emplace_back(*content, false);
          return true;
        }));
    for (auto& [content, there_before] : unfinished) {
      PALIMPSEST_ASSIGN_OR_RETURN(const auto info, view->Get(InfoKey(content)));
      there_before = info.has_value();
    }
  }
  for (const auto& [content, there_before] : unfinished) {
    const std::string prefix = ContentPrefix(content), end = PrefixEnd(prefix);
    CatalogWriter writer(database_);
    if (!there_before) PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kDeleteRange, prefix, end}));
    PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kDelete, UnfinishedKey(content), ""}));
    PALIMPSEST_RETURN_IF_ERROR(writer.Finish());
    PALIMPSEST_RETURN_IF_ERROR(database_->Scrub(prefix, end));  // gives its space back
  }
  return absl::OkStatus();
}

absl::StatusOr<Catalog::Added> CatalogImpl::Add(std::string_view path, std::string_view text,
                                                std::string_view tokenizer_hash,
                                                const std::vector<int32_t>& token_ids) {
  PALIMPSEST_RETURN_IF_ERROR(CheckDocument(path, text));
  PALIMPSEST_RETURN_IF_ERROR(CheckTokenIds(token_ids));
  if (tenant_.size() > kTenantBytesMax) {
    return InvalidArgument("a tenant's name of {} bytes: at most {}", tenant_.size(), kTenantBytesMax);
  }
  const Hash256 content = ContentHash(tenant_, text), tokenizer = Sha256(tokenizer_hash);

  const std::lock_guard<std::mutex> lock(store_->writer);
  if (store_->unfinished) {
    PALIMPSEST_RETURN_IF_ERROR(RemoveUnfinished());
    store_->unfinished = false;
  }
  const std::unique_ptr<View> view = database_->MakeView();
  PALIMPSEST_RETURN_IF_ERROR(CheckIdIsFree(*view, content));
  // Damage reads as absence here, and what is absent is written: adding its text again repairs a document.
  PALIMPSEST_ASSIGN_OR_RETURN(const auto known, NothingIfDamaged(ReadInfo(*view, content), content));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto stored_ids,
                              NothingIfDamaged(ReadTokens(*view, content, tokenizer), content));
  bool text_stored = false;
  if (known.has_value()) {
    const absl::Status stored = ReadText(*view, content, *known).status();
    if (!stored.ok() && stored.code() != absl::StatusCode::kDataLoss) return stored;
    text_stored = stored.ok();
  }
  InfoRecord info = known.value_or(InfoRecord{.text_bytes = text.size(),
                                              .tokens = 0,
                                              .created_unix_ms = store_->clock.UnixMillis(),
                                              .path = std::string(path),
                                              .tenant = tenant_});
  info.tokens = token_ids.size();
  if (!text_stored || stored_ids != token_ids || known != info) {
    absl::Status written = WriteDocument(content, info, text_stored ? "" : text, tokenizer,
                                         stored_ids == token_ids ? nullptr : &token_ids);
    if (!written.ok()) {
      store_->unfinished = true;
      return written;
    }
  }
  return Added{.info = InfoOf(content, std::move(info)), .already_known = known.has_value()};
}

// An empty text or null ids: those that are stored are right.
absl::Status CatalogImpl::WriteDocument(const Hash256& content, const InfoRecord& info, std::string_view text,
                                        const Hash256& tokenizer, const std::vector<int32_t>* token_ids) {
  CatalogWriter writer(database_);
  PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kPut, UnfinishedKey(content), ""}));
  PALIMPSEST_RETURN_IF_ERROR(WriteText(&writer, content, text));
  if (token_ids != nullptr) PALIMPSEST_RETURN_IF_ERROR(WriteTokens(&writer, content, tokenizer, *token_ids));
  PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kDelete, UnfinishedKey(content), ""}));
  // With its info, the document is there.
  PALIMPSEST_RETURN_IF_ERROR(writer.Put(RecordKind::kInfo, InfoKey(content), EncodeInfo(info)));
  return writer.Finish();
}

absl::Status CatalogImpl::CheckIdIsFree(const View& view, const Hash256& content) const {
  bool free = true;  // of all tenants' ids: keys alone tell
  PALIMPSEST_RETURN_IF_ERROR(ScanInfos(view, IdOf(content).substr(kDocumentIdStart.size()),
                                       [&](const Hash256& holder, std::string_view, std::string_view) {
                                         free = holder == content;
                                         return free;
                                       }));
  if (free) return absl::OkStatus();
  return Error(absl::StatusCode::kAlreadyExists, "document {}: this id belongs to another text",
               IdOf(content));
}

absl::StatusOr<DocumentInfo> CatalogImpl::Find(std::string_view id) const {
  const std::unique_ptr<View> view = database_->MakeView();
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 content, Resolve(*view, id));
  PALIMPSEST_ASSIGN_OR_RETURN(auto info, ReadInfo(*view, content));
  if (!info.has_value()) return NotFound("document {} is not in the catalog", Quoted(id));
  return InfoOf(content, std::move(*info));
}

absl::StatusOr<std::optional<DocumentInfo>> CatalogImpl::FindByContent(std::string_view text) const {
  const Hash256 content = ContentHash(tenant_, text);
  PALIMPSEST_ASSIGN_OR_RETURN(auto info, ReadInfo(*database_->MakeView(), content));
  if (!info.has_value()) return std::nullopt;
  return InfoOf(content, std::move(*info));
}

// Other tenants' documents are not there. A damaged one does not say whose it is: it can be named by all of
// its id, which no one guesses, and by who works without tenants.
bool CatalogImpl::MayName(const Hash256& content, std::string_view key, std::string_view record,
                          std::string_view id) const {
  const auto body = OpenRecord(RecordKind::kInfo, key, record);
  const auto info = body.ok() ? DecodeInfo(*body) : absl::StatusOr<InfoRecord>(body.status());
  if (info.ok()) return info->tenant == tenant_;
  return tenant_.empty() || id == IdOf(content);
}

absl::StatusOr<Hash256> CatalogImpl::Resolve(const View& view, std::string_view id) const {
  const std::string_view digits = id.substr(std::min(id.size(), kDocumentIdStart.size()));
  const bool hex = std::all_of(digits.begin(), digits.end(),
                               [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!id.starts_with(kDocumentIdStart) || !hex || digits.size() > kDocumentIdDigits) {
    return NotFound("document {}: ids look like doc-0123456789abcdef; `palimpsest documents list` shows all",
                    Quoted(id));
  }
  if (id.size() < kIdPrefixMin) {
    return InvalidArgument("document {}: give at least {} characters of the id", Quoted(id), kIdPrefixMin);
  }
  std::vector<Hash256> found;
  PALIMPSEST_RETURN_IF_ERROR(
      ScanInfos(view, digits, [&](const Hash256& content, std::string_view key, std::string_view record) {
        if (MayName(content, key, record, id)) found.push_back(content);
        return found.size() < 4;
      }));
  if (found.empty()) return NotFound("document {} is not in the catalog", Quoted(id));
  if (found.size() == 1) return found[0];
  return InvalidArgument("document {} stands for {} and {}{}; give more characters", Quoted(id),
                         IdOf(found[0]), IdOf(found[1]), found.size() > 2 ? " and others" : "");
}

absl::StatusOr<Document> CatalogImpl::Get(std::string_view id, std::string_view tokenizer_hash) const {
  const std::unique_ptr<View> view = database_->MakeView();
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 content, Resolve(*view, id));
  PALIMPSEST_ASSIGN_OR_RETURN(auto info, ReadInfo(*view, content));
  if (!info.has_value()) return NotFound("document {} is not in the catalog", Quoted(id));
  Document document;
  auto text = ReadText(*view, content, *info);
  if (!text.ok()) return Damaged(IdOf(content), text.status());
  document.text = std::move(*text);
  PALIMPSEST_ASSIGN_OR_RETURN(auto ids,
                              NothingIfDamaged(ReadTokens(*view, content, Sha256(tokenizer_hash)), content));
  if (ids.has_value()) document.token_ids = std::move(*ids);
  document.info = InfoOf(content, std::move(*info));
  return document;
}

absl::StatusOr<DocumentTokens> CatalogImpl::GetTokenIds(std::string_view id,
                                                        std::string_view tokenizer_hash) const {
  const std::unique_ptr<View> view = database_->MakeView();
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 content, Resolve(*view, id));
  PALIMPSEST_ASSIGN_OR_RETURN(auto info, ReadInfo(*view, content));
  if (!info.has_value()) return NotFound("document {} is not in the catalog", Quoted(id));
  DocumentTokens tokens;
  PALIMPSEST_ASSIGN_OR_RETURN(auto ids,
                              NothingIfDamaged(ReadTokens(*view, content, Sha256(tokenizer_hash)), content));
  if (ids.has_value()) tokens.ids = std::move(*ids);
  tokens.info = InfoOf(content, std::move(*info));
  return tokens;
}

absl::Status CatalogImpl::PutTokenIds(std::string_view id, std::string_view tokenizer_hash,
                                      const std::vector<int32_t>& token_ids) {
  PALIMPSEST_RETURN_IF_ERROR(CheckTokenIds(token_ids));
  const std::lock_guard<std::mutex> lock(store_->writer);
  const std::unique_ptr<View> view = database_->MakeView();
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 content, Resolve(*view, id));
  const Hash256 tokenizer = Sha256(tokenizer_hash);
  PALIMPSEST_ASSIGN_OR_RETURN(const auto stored,
                              NothingIfDamaged(ReadTokens(*view, content, tokenizer), content));
  if (stored == token_ids) return absl::OkStatus();
  CatalogWriter writer(database_);
  PALIMPSEST_RETURN_IF_ERROR(WriteTokens(&writer, content, tokenizer, token_ids));
  return writer.Finish();
}

absl::StatusOr<std::vector<DocumentInfo>> CatalogImpl::List() const {
  const std::unique_ptr<View> view = database_->MakeView();
  std::vector<DocumentInfo> infos;
  absl::Status damaged;
  const auto visit = [&](std::string_view key, std::string_view record) {
    const std::optional<Hash256> content = ContentOfKey(key);
    if (!content.has_value()) return true;
    absl::StatusOr<InfoRecord> info = DataLoss("");
    const auto body = OpenRecord(RecordKind::kInfo, key, record);
    info = body.ok() ? DecodeInfo(*body) : absl::StatusOr<InfoRecord>(body.status());
    if (info.ok() && info->tenant != tenant_) return true;
    if (!info.ok()) {
      if (!tenant_.empty()) return true;  // whose it is cannot be read
      damaged = Damaged(IdOf(*content), info.status());
      return false;
    }
    infos.push_back(InfoOf(*content, std::move(*info)));
    return true;
  };
  PALIMPSEST_RETURN_IF_ERROR(view->Scan(kInfoPrefix, PrefixEnd(std::string(kInfoPrefix)), visit));
  PALIMPSEST_RETURN_IF_ERROR(damaged);
  std::sort(infos.begin(), infos.end(), [](const DocumentInfo& a, const DocumentInfo& b) {
    return std::tie(a.created_unix_ms, a.id) < std::tie(b.created_unix_ms, b.id);
  });
  return infos;
}

absl::Status CatalogImpl::Delete(std::string_view id) {
  const std::lock_guard<std::mutex> lock(store_->writer);
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 content, Resolve(*database_->MakeView(), id));
  const std::string prefix = ContentPrefix(content), end = PrefixEnd(prefix);
  CatalogWriter writer(database_);
  PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kDelete, InfoKey(content), ""}));
  PALIMPSEST_RETURN_IF_ERROR(writer.Append({Change::kDeleteRange, prefix, end}));
  PALIMPSEST_RETURN_IF_ERROR(writer.Finish());
  return database_->Scrub(prefix, end);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Open(const std::string& data_dir) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<DataFolder> folder, DataFolder::Open(data_dir));
  return Open(std::shared_ptr<const DataFolder>(std::move(folder)));
}

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Open(std::shared_ptr<const DataFolder> folder,
                                                       const Clock& clock) {
  PALIMPSEST_ASSIGN_OR_RETURN(auto database, CatalogDatabase::Open(folder->CatalogPath()));
  std::shared_ptr<Store> store(new Store{std::move(folder), clock, std::move(database), {}, false});
  auto catalog = std::make_unique<CatalogImpl>(std::move(store), /*tenant=*/"");
  PALIMPSEST_RETURN_IF_ERROR(catalog->Prepare());
  return catalog;
}

}  // namespace palimpsest
