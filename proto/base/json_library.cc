// Boost.JSON is header-only: its one implementation in the product.
#include <boost/json/src.hpp>
