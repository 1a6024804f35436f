// Scores a file of requests through the loader that TF Serving uses, with no Python in the process.
//
//   score_requests MODEL_DIR SIGNATURE REQUESTS RESPONSES [--repeat N] [--threads N] [--callers N]
//
// MODEL_DIR is loaded once with LoadSavedModel (tag "serve") and called with Session::Run.
// REQUESTS is a sequence of frames; RESPONSES gets one frame for each, in order:
//
//   u32 status, u32 message bytes, message    (a request has status 0 and an empty message)
//   u32 tensors, then for each: u32 name bytes, name, u64 proto bytes, TensorProto
//
// All integers are little-endian. A request that the model refuses gets the status code and message
// as TensorFlow words them and no tensors; the next one is scored all the same.
// --repeat N calls each request N times more (after 10 that do not count) and prints one JSON line
// for each: nanoseconds of Session::Run alone, without decoding and encoding the request.
// --callers N does so in N threads at once, as a server without batching does; default 1.
// --threads N limits both thread pools of the session; default: TensorFlow's own, as in TF Serving.
//
// Exit codes: 0 done, 1 a file cannot be read or written, 2 wrong arguments, 3 the model does not
// load.
// serving/cpp_loader.py builds and calls this.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/platform/errors.h"
#include "tensorflow/core/public/session.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using tensorflow::SignatureDef;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::TensorProto;
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

constexpr int kUncountedCalls = 10;
constexpr char kServeTag[] = "serve";  // the wheel ships no tag_constants.h

struct Arguments {
  std::string model_dir, signature, requests, responses;
  int64_t repeat = 0, callers = 1;
  int threads = 0;
};

bool ParseCount(const char* text, int64_t* value) {
  char* end = nullptr;
  *value = std::strtoll(text, &end, 10);
  return end != text && *end == '\0' && *value >= 0;
}

bool ParseArguments(int argc, char** argv, Arguments* arguments) {
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    int64_t value = 0;
    if (word == "--repeat" || word == "--threads" || word == "--callers") {
      if (++i >= argc || !ParseCount(argv[i], &value)) return false;
      if (word == "--callers") arguments->callers = value;
      if (word == "--repeat") arguments->repeat = value;
      if (word == "--threads") arguments->threads = static_cast<int>(value);
    } else {
      names.push_back(word);
    }
  }
  if (names.size() != 4 || arguments->callers < 1) return false;
  arguments->model_dir = names[0];
  arguments->signature = names[1];
  arguments->requests = names[2];
  arguments->responses = names[3];
  return true;
}

// Reads frames from memory; every read says whether that many bytes were left.
class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}
  bool AtEnd() const { return at_ == bytes_.size(); }

  template <typename T>
  bool Integer(T* value) {
    if (bytes_.size() - at_ < sizeof(T)) return false;
    std::memcpy(value, bytes_.data() + at_, sizeof(T));  // the wheel exists for little-endian only
    at_ += sizeof(T);
    return true;
  }

  bool Bytes(uint64_t size, std::string* value) {
    if (bytes_.size() - at_ < size) return false;
    value->assign(bytes_, at_, size);
    at_ += size;
    return true;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

bool ReadRequest(Reader* reader, NamedTensors* tensors) {
  uint32_t status = 0, size = 0, count = 0;
  std::string message;
  if (!reader->Integer(&status) || !reader->Integer(&size) || !reader->Bytes(size, &message) ||
      !reader->Integer(&count)) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t proto_size = 0;
    std::string name, bytes;
    TensorProto proto;
    Tensor tensor;
    if (!reader->Integer(&size) || !reader->Bytes(size, &name) || !reader->Integer(&proto_size) ||
        !reader->Bytes(proto_size, &bytes) || !proto.ParseFromString(bytes) ||
        !tensor.FromProto(proto)) {
      return false;
    }
    tensors->emplace_back(name, std::move(tensor));
  }
  return true;
}

template <typename T>
void PutInteger(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void PutString(const std::string& value, std::string* out) {
  PutInteger(static_cast<uint32_t>(value.size()), out);
  out->append(value);
}

std::string Response(const Status& status, const std::vector<std::string>& names,
                     const std::vector<Tensor>& tensors) {
  std::string out;
  PutInteger(static_cast<uint32_t>(status.code()), &out);
  PutString(std::string(status.message()), &out);
  PutInteger(static_cast<uint32_t>(status.ok() ? tensors.size() : 0), &out);
  for (size_t i = 0; status.ok() && i < tensors.size(); ++i) {
    TensorProto proto;
    // tensor_content keeps every bit of a float; of strings it would be an encoding of its own.
    if (tensors[i].dtype() == tensorflow::DT_STRING) {
      tensors[i].AsProtoField(&proto);
    } else {
      tensors[i].AsProtoTensorContent(&proto);
    }
    const std::string bytes = proto.SerializeAsString();
    PutString(names[i], &out);
    PutInteger(static_cast<uint64_t>(bytes.size()), &out);
    out.append(bytes);
  }
  return out;
}

// Gives the tensors the names that they have in the graph. A request has exactly the signature's
// keys and dtypes; shapes are the session's to check.
Status Feeds(const SignatureDef& signature, const NamedTensors& request, NamedTensors* feeds) {
  std::map<std::string, const Tensor*> given;
  for (const auto& [name, tensor] : request) given[name] = &tensor;
  std::map<std::string, const tensorflow::TensorInfo*> expected;  // a proto's map has no order
  for (const auto& [name, info] : signature.inputs()) expected[name] = &info;
  for (const auto& [name, info] : expected) {
    const auto found = given.find(name);
    if (found == given.end()) return tensorflow::errors::InvalidArgument("missing input: ", name);
    if (found->second->dtype() != info->dtype()) {
      return tensorflow::errors::InvalidArgument(
          "input ", name, " is ", tensorflow::DataTypeString(found->second->dtype()), ", expected ",
          tensorflow::DataTypeString(info->dtype()));
    }
    feeds->emplace_back(info->name(), *found->second);
    given.erase(found);
  }
  if (!given.empty()) {
    return tensorflow::errors::InvalidArgument("unknown input: ", given.begin()->first);
  }
  return tensorflow::OkStatus();
}

void PrintTiming(size_t request, std::vector<int64_t> nanoseconds, double seconds) {
  std::sort(nanoseconds.begin(), nanoseconds.end());
  const size_t last = nanoseconds.size() - 1;
  std::cout << "{\"request\": " << request << ", \"calls\": " << nanoseconds.size()
            << ", \"min_ns\": " << nanoseconds.front()
            << ", \"median_ns\": " << nanoseconds[last / 2]
            << ", \"p99_ns\": " << nanoseconds[last * 99 / 100]
            << ", \"calls_per_s\": " << nanoseconds.size() / seconds << "}" << std::endl;
}

Status Call(tensorflow::Session* session, const NamedTensors& feeds,
            const std::vector<std::string>& fetches, int64_t repeat,
            std::vector<int64_t>* nanoseconds) {
  std::vector<Tensor> results;
  nanoseconds->reserve(repeat);
  for (int64_t call = 0; call < repeat; ++call) {
    const auto start = std::chrono::steady_clock::now();
    const Status status = session->Run(feeds, fetches, {}, &results);
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (!status.ok()) return status;
    nanoseconds->push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
  }
  return tensorflow::OkStatus();
}

Status TimeCalls(tensorflow::Session* session, const NamedTensors& feeds,
                 const std::vector<std::string>& fetches, const Arguments& arguments,
                 size_t request) {
  std::vector<int64_t> nanoseconds;
  const Status status = Call(session, feeds, fetches, kUncountedCalls, &nanoseconds);
  if (!status.ok()) return status;
  nanoseconds.clear();
  std::vector<std::vector<int64_t>> of_caller(arguments.callers);
  std::vector<Status> statuses(arguments.callers);
  std::vector<std::thread> callers;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < arguments.callers; ++i) {
    callers.emplace_back([&, i] {
      statuses[i] = Call(session, feeds, fetches, arguments.repeat, &of_caller[i]);
    });
  }
  for (std::thread& caller : callers) caller.join();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  for (int64_t i = 0; i < arguments.callers; ++i) {
    if (!statuses[i].ok()) return statuses[i];
    nanoseconds.insert(nanoseconds.end(), of_caller[i].begin(), of_caller[i].end());
  }
  PrintTiming(request, std::move(nanoseconds), elapsed.count());
  return tensorflow::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!ParseArguments(argc, argv, &arguments)) {
    std::cerr << "usage: score_requests MODEL_DIR SIGNATURE REQUESTS RESPONSES"
                 " [--repeat N] [--threads N] [--callers N]\n";
    return 2;
  }

  tensorflow::SessionOptions options;
  options.config.set_intra_op_parallelism_threads(arguments.threads);
  options.config.set_inter_op_parallelism_threads(arguments.threads);
  tensorflow::SavedModelBundle bundle;
  const Status loaded = tensorflow::LoadSavedModel(options, {}, arguments.model_dir,
                                                   {kServeTag}, &bundle);
  if (!loaded.ok()) {
    std::cerr << "cannot load: " << loaded.ToString() << "\n";
    return 3;
  }
  const auto& signatures = bundle.meta_graph_def.signature_def();
  const auto signature = signatures.find(arguments.signature);
  if (signature == signatures.end()) {
    std::cerr << "cannot load: no signature " << arguments.signature << "\n";
    return 3;
  }
  std::vector<std::string> names, fetches;
  for (const auto& [name, info] : signature->second.outputs()) {
    names.push_back(name);
    fetches.push_back(info.name());
  }

  std::ifstream in(arguments.requests, std::ios::binary);
  if (!in) {
    std::cerr << "cannot read " << arguments.requests << "\n";
    return 1;
  }
  Reader reader(std::string(std::istreambuf_iterator<char>(in), {}));
  std::ofstream out(arguments.responses, std::ios::binary);
  for (size_t request = 0; !reader.AtEnd(); ++request) {
    NamedTensors tensors, feeds;
    if (!ReadRequest(&reader, &tensors)) {
      std::cerr << "cannot read request " << request << ": it is cut short or no TensorProto\n";
      return 1;
    }
    std::vector<Tensor> results;
    Status status = Feeds(signature->second, tensors, &feeds);
    if (status.ok()) status = bundle.session->Run(feeds, fetches, {}, &results);
    if (status.ok() && arguments.repeat > 0) {
      status = TimeCalls(bundle.session.get(), feeds, fetches, arguments, request);
    }
    out << Response(status, names, results);
  }
  out.close();
  if (!out) {
    std::cerr << "cannot write " << arguments.responses << "\n";
    return 1;
  }
  return 0;
}
