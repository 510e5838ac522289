#include "coordinator/receipt_json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <boost/json.hpp>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

json::object Write(const Message& message) {
  const auto& reflection = *message.GetReflection();
  json::object object;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* const field = message.GetDescriptor()->field(i);
    json::value& value = object[field->name()];
    if (field->is_repeated()) {
      PALIMPSEST_CHECK(field->cpp_type() == FieldDescriptor::CPPTYPE_STRING,
                       "{}: a list of another type than text", field->full_name());
      json::array& list = value.emplace_array();
      for (int at = 0; at < reflection.FieldSize(message, field); ++at) {
        list.emplace_back(reflection.GetRepeatedString(message, field, at));
      }
      continue;
    }
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        value = reflection.GetString(message, field);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        value = reflection.GetInt64(message, field);
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        value = reflection.GetDouble(message, field);
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        value = Write(reflection.GetMessage(message, field));
        break;
      default:
        PALIMPSEST_CHECK(false, "{}: of a type that receipts do not have", field->full_name());
    }
  }
  return object;
}

void ReadInto(Message& message, const json::object& object) {
  const auto& reflection = *message.GetReflection();
  boost::system::error_code ignored;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* const field = message.GetDescriptor()->field(i);
    const json::value* const value = object.if_contains(field->name());
    if (value == nullptr) continue;
    if (field->is_repeated()) {
      if (!value->is_array()) continue;
      for (const json::value& one : value->get_array()) {
        if (one.is_string()) reflection.AddString(&message, field, std::string(one.get_string()));
      }
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (value->is_object()) ReadInto(*reflection.MutableMessage(&message, field), value->get_object());
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      if (value->is_string()) reflection.SetString(&message, field, std::string(value->get_string()));
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
      const int64_t number = value->to_number<int64_t>(ignored);
      if (!ignored) reflection.SetInt64(&message, field, number);
    } else {
      const double number = value->to_number<double>(ignored);
      if (!ignored) reflection.SetDouble(&message, field, number);
    }
  }
}

}  // namespace

boost::json::object ReceiptJson(const proto::Receipt& receipt) { return Write(receipt); }

proto::Receipt ReceiptFromJson(const boost::json::value& value) {
  proto::Receipt receipt;
  if (value.is_object()) ReadInto(receipt, value.get_object());
  return receipt;
}

}  // namespace palimpsest
