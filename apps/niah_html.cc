#include "apps/niah_html.h"

#include "apps/niah_page.h"

namespace palimpsest {

std::string NiahHtml(std::string_view report_json) { return FillPage(kNiahPage, report_json); }

}  // namespace palimpsest
