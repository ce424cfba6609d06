// Replays recorded answers through the planner, the mixer and the budget, without a model: what would drafts have
// gained where passes cost so much? Milliseconds for hundreds of answers, so constants can be tried by the thousand.
//
//   maskprobe_replay ANSWERS ROWS:COST... [tuned] [interrupted=SHARE] [change=COST [known=COST]] [weights=FILE]
//
// ANSWERS is what bench/record.py writes. Costs are in plain passes. With tuned, drafts know the texts that `maskprobe
// tune` had the model write before it was recorded. With interrupted, passes seem to take 6% more or less than they
// cost, so large a share of them up to four times as much, and the budget learns from that. weights are the mixer's
// start weights, one a line. With change, a pass of another number of rows than the one before costs so much more; with
// known, drafts believe that it costs this much instead.
#include "drafting/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>

namespace {

using namespace mp;

constexpr int32_t magic = 0x3252504d; // "MPR2"
constexpr size_t most_rows = 60;
constexpr int32_t sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY | MP_SOURCE_HISTORY;

struct Answer {
    bool looping = false;
    std::vector<int32_t> prompt;
    std::vector<int32_t> output;
    // For the row of each output token: what the model ranked after it, and what a mask right behind it ranked for the
    // token after that.
    std::vector<Candidates> ranked;
    std::vector<Candidates> guessed;
};

struct Recording {
    size_t n_vocab = 0;
    std::vector<std::vector<int32_t>> texts; // that the model wrote for `maskprobe tune`
    std::vector<Answer> answers;
};

class Reader {
public:
    explicit Reader(const std::string & path) : in_(path, std::ios::binary) {}

    size_t count() {
        const int32_t value = read<int32_t>(1).front();
        if (value < 0) {
            throw std::runtime_error("a count is negative: not a recording");
        }
        return static_cast<size_t>(value);
    }

    template <class T> std::vector<T> read(size_t n) {
        std::vector<T> values(n);
        in_.read(reinterpret_cast<char *>(values.data()), static_cast<std::streamsize>(n * sizeof(T)));
        if (!in_) {
            throw std::runtime_error("the recording is not there or ends early");
        }
        return values;
    }

    std::vector<Candidates> lists(size_t n, size_t width) {
        std::vector<Candidates> result(n);
        for (Candidates & list : result) {
            list.token = read<int32_t>(width);
            list.logp = read<float>(width);
        }
        return result;
    }

private:
    std::ifstream in_;
};

Recording read_recording(const std::string & path) {
    Reader in(path);
    if (in.count() != magic) {
        throw std::runtime_error(path + " was not written by bench/record.py");
    }
    Recording recording;
    recording.n_vocab = in.count();
    const size_t n_ranked = in.count();
    const size_t n_guessed = in.count();
    recording.texts.resize(in.count());
    recording.answers.resize(in.count());
    for (std::vector<int32_t> & text : recording.texts) {
        text = in.read<int32_t>(in.count());
    }
    for (Answer & answer : recording.answers) {
        answer.looping = in.count() != 0;
        answer.prompt = in.read<int32_t>(in.count());
        answer.output = in.read<int32_t>(in.count());
        answer.ranked = in.lists(answer.output.size(), n_ranked);
        answer.guessed = in.lists(answer.output.size(), n_guessed);
    }
    return recording;
}

std::vector<float> interpolate(const std::map<size_t, float> & points) {
    std::vector<float> curve;
    for (size_t rows = 1; rows <= most_rows; ++rows) {
        auto high = points.lower_bound(rows);
        if (high == points.end()) {
            --high; // goes on as the last two say
        }
        if (high == points.begin()) {
            curve.push_back(high->second);
            continue;
        }
        const auto low = std::prev(high);
        const float slope = (high->second - low->second) / static_cast<float>(high->first - low->first);
        curve.push_back(low->second + slope * static_cast<float>(rows - low->first));
    }
    return curve;
}

struct Sums {
    double tokens = 0.0;
    double passes = 0.0;
    double rows = 0.0;
    double cost = 0.0;

    void add(const Sums & other) {
        tokens += other.tokens;
        passes += other.passes;
        rows += other.rows;
        cost += other.cost;
    }
    void show(const char * name) const {
        if (passes == 0.0) {
            return;
        }
        std::printf("%-8s tokens/pass %.3f  rows/pass %.2f  speed %.3f\n", name, tokens / passes, rows / passes,
                    tokens / cost);
    }
};

class Replay {
public:
    Replay(size_t n_vocab, std::vector<float> cost, const Mixer & mixer, double interrupted, float change, float known)
        : cost_(cost), start_(mixer), mixer_(mixer), adjacency_(n_vocab), grammar_(n_vocab),
          budget_(std::move(cost), interrupted >= 0.0, known), interrupted_(interrupted), change_(change) {}

    void learn_text(const std::vector<int32_t> & text) { history_.learn(text, 0); }

    // As mp::Session goes through an answer.
    Sums run(const Answer & answer) {
        NgramSource ngrams;
        for (const int32_t token : answer.prompt) {
            ngrams.push(token);
        }
        ngrams.push(answer.output.front());
        mixer_ = start_;
        budget_.begin_text();
        std::vector<Candidates> levels;
        size_t n_again = 0;
        Sums sums;
        for (size_t root = 0; root + 1 < answer.output.size();) {
            const size_t n_left = answer.output.size() - 1 - root;
            const PlanLimits limits{n_left > 1 ? most_rows : 1 + n_again, n_again, n_left - 1, 64, 1};
            const Plan plan =
                make_plan(answer.output[root], Evidence{ngrams, adjacency_, history_, grammar_, levels, sources},
                          mixer_, budget_, limits);
            const std::vector<int32_t> path = verify(plan, answer, root, ngrams);
            size_t rows = n_again + plan.tree.size();
            for (const int32_t masks : plan.masks_of_node) {
                rows += static_cast<size_t>(masks);
            }
            n_again = path.size() - n_on_spine(path, plan.tree.spine());
            levels.clear();
            if (plan.masks_of_node[static_cast<size_t>(path.back())] > 0) {
                levels.push_back(answer.guessed[root + path.size() - 1]);
            }
            for (size_t i = 0; i < path.size(); ++i) {
                ngrams.push(answer.output[++root]);
            }
            const double cost = cost_[std::min(rows, cost_.size()) - 1] + (rows != last_ ? change_ : 0.0f);
            last_ = rows;
            budget_.observe(rows, path.size(), plan.expected, seeming(cost));
            sums.add({static_cast<double>(path.size()), 1.0, static_cast<double>(rows), cost});
        }
        history_.learn(ngrams.tokens(), answer.prompt.size());
        return sums;
    }

private:
    std::vector<int32_t> verify(const Plan & plan, const Answer & answer, size_t root, NgramSource & ngrams) {
        std::vector<int32_t> path{0};
        for (;; ++root) {
            const int32_t token = answer.output[root + 1];
            const CandidateSet & candidates = plan.candidates[static_cast<size_t>(path.back())];
            if (!candidates.items.empty()) {
                mixer_.learn(candidates, token);
                ngrams.learn(candidates, token);
            }
            adjacency_.refresh(answer.output[root], answer.ranked[root]);
            const int32_t child = root + 2 < answer.output.size() ? plan.tree.child(path.back(), token) : -1;
            if (child < 0) {
                return path;
            }
            path.push_back(child);
        }
    }

    // What a clock would have said of a pass.
    double seeming(double cost) {
        if (interrupted_ < 0.0) {
            return cost;
        }
        const double noisy = cost * std::lognormal_distribution<double>(0.0, 0.06)(rng_);
        std::uniform_real_distribution<double> share(0.0, 1.0);
        return share(rng_) < interrupted_ ? noisy * (1.0 + 3.0 * share(rng_)) : noisy;
    }

    std::vector<float> cost_;
    Mixer start_;
    Mixer mixer_;
    AdjacencySource adjacency_; // kept from answer to answer, as in an object that serves them all
    HistorySource history_;     // the same
    GrammarSource grammar_;     // has no keeper: recorded answers follow no grammar
    Budget budget_;
    double interrupted_; // below 0: costs are known
    float change_;       // what another number of rows than before costs
    size_t last_ = 0;
    std::mt19937 rng_{1};
};

int main_of(int argc, char ** argv) {
    if (argc < 3) {
        std::fprintf(
            stderr,
            "usage: %s ANSWERS ROWS:COST... [tuned] [interrupted=SHARE] [change=COST [known=COST]] [weights=FILE]\n",
            argv[0]);
        return 2;
    }
    std::map<size_t, float> points{{1, 1.0f}};
    Mixer mixer;
    double interrupted = -1.0;
    bool tuned = false;
    float change = 0.0f;
    float known = -1.0f;
    for (int i = 2; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "tuned") {
            tuned = true;
        } else if (argument.rfind("interrupted=", 0) == 0) {
            interrupted = std::stod(argument.substr(12));
        } else if (argument.rfind("change=", 0) == 0) {
            change = std::stof(argument.substr(7));
        } else if (argument.rfind("known=", 0) == 0) {
            known = std::stof(argument.substr(6));
        } else if (argument.rfind("weights=", 0) == 0) {
            std::ifstream in(argument.substr(8));
            for (float & weight : mixer.weights()) {
                if (!(in >> weight)) {
                    throw std::runtime_error(argument + ": a mixer has " + std::to_string(n_features) + " weights");
                }
            }
        } else {
            const size_t colon = argument.find(':');
            points[std::stoul(argument)] = std::stof(argument.substr(colon + 1));
        }
    }
    const Recording recording = read_recording(argv[1]);
    Replay replay(recording.n_vocab, interpolate(points), mixer, interrupted, change, known >= 0.0f ? known : change);
    if (tuned) {
        for (const std::vector<int32_t> & text : recording.texts) {
            replay.learn_text(text);
        }
    }
    Sums all, looping, other;
    double dearest = 0.0;
    for (const Answer & answer : recording.answers) {
        const Sums sums = replay.run(answer);
        all.add(sums);
        (answer.looping ? looping : other).add(sums);
        dearest = std::max(dearest, sums.cost / std::max(1.0, sums.tokens));
    }
    all.show("all");
    looping.show("looping");
    other.show("other");
    std::printf("dearest answer %.3f of plain\n", dearest);
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    try {
        return main_of(argc, argv);
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
