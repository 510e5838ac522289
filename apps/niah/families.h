// The makers of tasks, each in a file of its own; task.cc has the table of who makes which.
//
// Errors : InvalidArgument of a file of questions that is not in its format, or has too little.
// Sources: RULER's rules for niah, vt, cwe, fwe and qa; InfiniteBench's for kv_retrieval; landmark
//          attention's passkey; bAbI's stories scattered in prose as BABILong does it.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "apps/niah/haystack.h"
#include "apps/niah/task.h"

namespace palimpsest {

// needles.cc: values of keys in a haystack, and a question for some of them.
struct NeedlesForm {
  enum class Value { kNumber, kUuid };
  bool facts = false;               // of different kinds, so that a small model does not mix them up
  bool among_needles = false;       // the haystack is other needles
  Value key_form = Value::kNumber;  // kNumber: a word
  Value value_form = Value::kNumber;
  int64_t queries = 1, values = 1;  // keys that a question asks for, and values of each
  int64_t distractors = 0;          // further keys, in the whole text
};
// `haystack` may be null for one that is among needles.
std::unique_ptr<NiahTask> MakeNeedles(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack,
                                      const NeedlesForm& form);

// passkey.cc: one pass key in noise, of so many digits; 0: a UUID.
std::unique_ptr<NiahTask> MakePasskey(NiahTaskTraits traits, int64_t digits);
// key_values.cc: one object of UUIDs, and a key whose value is asked for.
std::unique_ptr<NiahTask> MakeKeyValues(NiahTaskTraits traits);
// variables.cc: a chain of assignments in noise, and all names of one value.
std::unique_ptr<NiahTask> MakeVariables(NiahTaskTraits traits);
// word_counts.cc: the ten words that are most often in a list; the three coded words that are most often in a
// text of them.
std::unique_ptr<NiahTask> MakeCommonWords(NiahTaskTraits traits);
std::unique_ptr<NiahTask> MakeFrequentWords(NiahTaskTraits traits);
// stories.cc: who is where, told in `facts` (1 to 3) sentences that are scattered in prose.
std::unique_ptr<NiahTask> MakeStories(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack, int facts);
// records.cc: every order that is told of in the noise, as JSON.
std::unique_ptr<NiahTask> MakeRecords(NiahTaskTraits traits);
// questions.cc: a question and the paragraphs that answer it among others, from a file of the person's.
enum class QuestionsFormat { kSquad, kHotpotQa };
absl::StatusOr<std::unique_ptr<NiahTask>> MakeQuestions(NiahTaskTraits traits, QuestionsFormat format,
                                                        std::string_view json, std::string_view name);

}  // namespace palimpsest
