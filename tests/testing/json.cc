// Boost.JSON is header-only: its one implementation in the tests.
#include <boost/json/src.hpp>
